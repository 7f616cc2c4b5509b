"""Federations: what a site file may say, how clients are spread, and where a file is looked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parslfl.channels import File, Grpc, Inline
from parslfl.errors import ConfigError
from parslfl.messages import Client
from parslfl.sites import Federation, Site, find_site_file, load_federation, site_files, state_folder
from parslfl_executors.local import Local
from parslfl_executors.mpi import Mpi

SHIPPED = Path(__file__).parents[1] / "site_configs"
KINDS = "kubernetes, local, mpi, slurm"
TWO = """\
name: two
sites:
  - name: here
    clients: 2
    data: /data/here
    executor: {kind: local, workers: 2, accelerators: [0, 1], parsl: {provider: {nodes_per_block: 1}}}
    transport: {kind: inline}
    retries: 0
  - name: there
    clients: 1
    executor: {kind: local}
"""
EXPECTED = Federation(
    name="two",
    sites=(
        Site(
            name="here",
            clients=2,
            data="/data/here",
            executor=Local(workers=2, accelerators=["0", "1"], parsl={"provider": {"nodes_per_block": 1}}),
            transport=Inline(),
            retries=0,
        ),
        Site(name="there", clients=1, executor=Local(), transport=File()),
    ),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an empty folder of site files."""
    (tmp_path / "site_configs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(folder: Path, text: str, overrides: dict[str, object] | None = None) -> list[str]:
    (folder / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_federation("bad.yaml", overrides)
    return str(caught.value).splitlines()


def of(*clients: int) -> Federation:
    sites = [Site(name=f"s{i}", clients=n, executor=Local()) for i, n in enumerate(clients)]
    return Federation(sites=tuple(sites))


def test_a_site_file_is_read_whole(folder: Path) -> None:
    (folder / "two.yaml").write_text(TWO)
    assert load_federation("two") == EXPECTED


def test_what_is_resolved_is_plain_and_makes_the_same_again() -> None:
    plain = json.loads(json.dumps(EXPECTED.resolved()))
    assert Federation.model_validate(plain) == EXPECTED
    names = ["name", "clients", "data", "executor", "transport", "retries", "state", "merge"]
    assert list(plain["sites"][0]) == names


def test_overrides_name_a_site_or_count(folder: Path) -> None:
    (folder / "two.yaml").write_text(TWO)
    overrides = {
        "sites.there.clients": "10",
        "sites[0].executor.workers": "1",
        "sites.1.transport.kind": "inline",
    }
    here, there = load_federation("two", overrides).sites
    assert (here.executor.workers, there.clients, there.transport) == (1, 10, Inline())


def test_nothing_wrong_in_a_site_hides_another_mistake(folder: Path) -> None:
    text = """\
sites:
  - name: no
    clients: 0
    executor: {kind: htcondor, account: me}
  - name: a
    clients: 3
    executor: {kind: local, workers: 3, accelerators: 2}
    transport: {kind: fil}
  - name: a
    executor: {kind: local, wrokers: 3, accelerators: no}
    data: 3
  - name: driver
    clients: 3
  - name: my site
    clients: 3
    executor:
"""
    shared = "one each (to share, repeat it: [0, 0])"
    assert refused(folder, text) == [
        "bad.yaml:2: sites[0].name: expected text, got no, which YAML reads as false: put it in quotes",
        "bad.yaml:3: sites[0].clients: expected at least 1, got 0",
        f"bad.yaml:4: sites[0].executor.kind: unknown kind 'htcondor' (allowed: {KINDS})",
        f"bad.yaml:7: sites[1].executor.workers: 3 workers for 2 accelerators, {shared}",
        "bad.yaml:8: sites[1].transport.kind: unknown kind 'fil' (allowed: file, grpc, inline, proxystore)",
        "bad.yaml:9: sites[2].name: a second site called 'a': names must differ (first is sites[1])",
        "bad.yaml:9: sites[2].clients: missing",
        "bad.yaml:10: sites[2].executor.accelerators: expected a count or device names, got False",
        "bad.yaml:10: sites[2].executor.wrokers: unknown field (did you mean 'workers'?)",
        "bad.yaml:11: sites[2].data: expected text, got 3, which YAML reads as a number: put it in quotes",
        "bad.yaml:12: sites[3].name: 'driver' is the process that runs the rounds: choose another name",
        "bad.yaml:12: sites[3].executor: missing",
        "bad.yaml:14: sites[4].name: expected letters, digits, - and _ (not first), got 'my site'",
        "bad.yaml:16: sites[4].executor: expected fields such as {kind: local}, got nothing",
    ]


@pytest.mark.parametrize(
    "text", ["sites: []", "sites: 3", "sites: {a: 1}", "sites:", "name: x", "sites: [3]", ""]
)
def test_a_federation_has_sites(folder: Path, text: str) -> None:
    assert len(refused(folder, text)) == 1


def test_two_sites_of_one_name_are_one_problem(folder: Path) -> None:
    problem = "names must differ (first is sites[0])"
    assert refused(folder, TWO.replace("there", "here")) == [
        f"bad.yaml:9: sites[1].name: a second site called 'here': {problem}"
    ]
    assert refused(folder, TWO, {"sites.there.name": "here"}) == [
        f"--set sites.there.name=here: sites[1].name: a second site called 'here': {problem}"
    ]


RANKS = "sites:\n  - name: far\n    clients: 3\n    executor: {kind: mpi, ranks_per_node: 2}\n"


def test_ranks_merge_and_say_so(folder: Path) -> None:
    (folder / "mpi.yaml").write_text(RANKS)
    (far,) = load_federation("mpi").sites
    assert far.merges()
    assert Federation.model_validate(load_federation("mpi").resolved()).sites == (far,)
    assert Site(name="far", clients=3, executor=Mpi(ranks_per_node=2)) == far


def test_ranks_cannot_leave_it_to_the_driver(folder: Path) -> None:
    problem = "the ranks of an mpi site always add their updates up: leave it out, or write 'site'"
    told = refused(folder, RANKS + "    merge: driver\n")
    assert told == [f"bad.yaml:5: sites[0].merge: {problem}"]


def test_clients_are_counted_over_the_sites() -> None:
    assert EXPECTED.clients() == (Client(0, "here"), Client(1, "here"), Client(2, "there"))


SPREADS = [
    ((30, 30), 60, [30, 30]),
    ((30, 30), 7, [4, 3]),
    ((50, 10), 6, [5, 1]),
    ((50, 10), 12, [10, 2]),
    ((100, 1, 1), 3, [1, 1, 1]),
    ((100, 1, 1), 5, [3, 1, 1]),
    ((2, 3, 5), 11, [2, 3, 6]),  # 2.2, 3.3, 5.5: the largest remainder gets the last one
    ((1,), 1000, [1000]),
]


@pytest.mark.parametrize(("clients", "count", "spread"), SPREADS)
def test_a_count_is_spread_in_proportion(clients: tuple[int, ...], count: int, spread: list[int]) -> None:
    federation = of(*clients).with_clients(count)
    assert [site.clients for site in federation.sites] == spread
    assert len(federation.clients()) == count


def test_each_site_keeps_a_client() -> None:
    with pytest.raises(ConfigError, match="clients: 1 for 2 sites: each needs one"):
        of(30, 30).with_clients(1)


def test_a_worker_has_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    shares = [
        (Local(), (8, 1)),
        (Local(workers=3), (3, 2)),
        (Local(workers=16), (16, 1)),
        (Local(accelerators=2), (2, 4)),
        (Local(accelerators=["0", "0", "1", "1"], threads=3), (4, 3)),
    ]
    for local, share in shares:
        assert (local.workers_per_node(), local.threads_per_worker()) == share


def test_a_file_is_found_as_given_then_in_site_configs(folder: Path) -> None:
    kept = folder / "site_configs/mine.yaml"
    kept.write_text(TWO)
    assert find_site_file("mine") == find_site_file("mine.yaml") == find_site_file(kept) == kept
    (folder / "mine").mkdir()  # a folder of that name is in nobody's way
    assert find_site_file("mine") == kept
    (folder / "mine.yml").write_text(TWO)
    assert find_site_file("mine") == folder / "mine.yml"


def test_the_shipped_files_are_found_from_anywhere(folder: Path) -> None:
    assert find_site_file("local.yaml").is_file()
    assert site_files()["local.yaml"] == find_site_file("local")
    own = folder / "site_configs/local.yaml"
    own.write_text(TWO)
    assert site_files()["local.yaml"] == find_site_file("local") == own


def test_a_missing_file_tells_where_and_which_there_are(folder: Path) -> None:
    (folder / "site_configs/mine.yaml").write_text(TWO)
    with pytest.raises(ConfigError) as caught:
        load_federation("mien.yaml")
    message = str(caught.value)
    assert message.startswith(
        f"mien.yaml: no such site file (did you mean 'mine.yaml'?); looked in {folder}, "
    )
    known = sorted([*(path.name for path in SHIPPED.glob("*.yaml")), "mine.yaml"])
    assert message.endswith(f"; there is {', '.join(known)}")


def test_a_folder_is_no_site_file(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine/a.yaml").write_text(TWO)
    with pytest.raises(ConfigError, match="mine: a folder, not a site file; there is a.yaml"):
        find_site_file("mine")


@pytest.mark.parametrize("name", ["", "x" * 300, "a\0b", "/", "no/such", "bad.yaml/x"])
def test_a_strange_name_is_refused_in_words(folder: Path, name: str) -> None:
    (folder / "bad.yaml").write_text(TWO)
    with pytest.raises(ConfigError, match="site file"):
        find_site_file(name)


def test_the_local_site_has_the_papers_sixty_clients(repository: Path) -> None:
    text = (repository / "site_configs/local.yaml").read_text()
    federation = load_federation(repository / "site_configs/local.yaml")
    assert text.startswith("# python workflows/cifar_round.py --site local.yaml\n")
    assert [(site.name, site.clients, site.executor) for site in federation.sites] == [("local", 60, Local())]


def test_what_the_local_file_offers_is_accepted(repository: Path, folder: Path) -> None:
    """Each field that is commented out can be turned on."""
    text = (repository / "site_configs/local.yaml").read_text()
    fields = ("data", "workers", "threads", "accelerators", "worker_init")
    for name in fields:
        assert text.count(f"# {name}: ") == 1
        text = text.replace(f"# {name}: ", f"{name}: ")
    (folder / "all.yaml").write_text(text)
    (site,) = load_federation("all").sites
    assert (site.data, site.executor.accelerators) == ("/path/to/data", 2)


@pytest.mark.parametrize("field", ["workers", "threads"])
def test_a_million_workers_are_refused(field: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"sites\[0\].executor.{field}: expected at most 4,096, got 1000000"
    ):
        load_federation("local", {f"sites[0].executor.{field}": "1000000"})


def test_an_empty_name_in_a_path_is_told() -> None:
    with pytest.raises(
        ConfigError, match=r"--set sites..clients=3: a name is missing, before or after a dot"
    ):
        load_federation("local", {"sites..clients": "3"})


def test_clients_state_lies_in_the_file_transports_place_unless_the_site_names_one(tmp_path: Path) -> None:
    site = Site(name="here", clients=1, executor=Local())
    run, shared = tmp_path / "run", Site(**{**dict(site), "transport": File(path="/scratch")})
    assert state_folder(site, run, "7f") == str(run / "clients")
    assert state_folder(shared, run, "7f") == "/scratch/parslfl-7f-clients"
    assert state_folder(shared, tmp_path / "moved", "7f") == "/scratch/parslfl-7f-clients"
    named = Site(**{**dict(site), "transport": Inline(), "state": "/keep"})
    assert state_folder(named, run, "7f") == "/keep/parslfl-7f-clients"
    assert state_folder(Site(**{**dict(site), "transport": Inline()}), run, "7f") is None


def test_a_state_folder_is_named_from_the_root(folder: Path) -> None:
    text = "sites: [{name: a, clients: 1, executor: {kind: local}, state: keep}]\n"
    (said,) = refused(folder, text)
    assert "sites[0].state: expected a path from / on" in said


WRONG_GRPC = [
    ("{port: 70000}", "transport.port: expected at most 65,535"),
    ("{address: 'host:80'}", r"transport.address: expected a name or number .*\(the port is `port`\)"),
    ("{address: ''}", "transport.address: expected a name"),
    ("{address: a, listen: '54001'}", "transport.listen: expected HOST:PORT"),
    ("{address: a, listen: '0.0.0.0:99999'}", "transport.listen: expected HOST:PORT"),
    ("{listen: '0.0.0.0:54001'}", "transport.address: name the address where workers reach"),
    ("{path: /x}", "transport.path: unknown field"),
]


@pytest.mark.parametrize(("fields", "words"), WRONG_GRPC)
def test_a_grpc_transport_is_checked(fields: str, words: str) -> None:
    spec = "{kind: grpc, " + fields[1:]
    with pytest.raises(ConfigError, match=words):
        load_federation("local", {"sites.local.transport": spec})


def test_a_grpc_transport_needs_encrypted_tasks() -> None:
    plain = {"sites.local.transport": "{kind: grpc}", "sites.local.executor.parsl": "{encrypted: false}"}
    with pytest.raises(ConfigError, match=r"executor.parsl.encrypted: the secrets .* leave encryption on"):
        load_federation("local", plain)
    (site,) = load_federation("local", {"sites.local.transport": "{kind: grpc, port: 5000}"}).sites
    assert site.transport == Grpc(port=5000)


def test_a_connector_has_a_known_name_or_a_path() -> None:
    known = {"sites.local.transport": "{kind: proxystore, connector: file, options: {store_dir: /s}}"}
    (site,) = load_federation("local", known).sites
    assert site.transport.options == {"store_dir": "/s"}
    with pytest.raises(
        ConfigError, match=r"connector: expected package.module.Class, or one of .*, got 'rds'"
    ):
        load_federation("local", {"sites.local.transport": "{kind: proxystore, connector: rds}"})
