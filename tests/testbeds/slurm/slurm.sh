#!/bin/bash
# A real Slurm on this machine, with several virtual nodes, for tests: root on Debian or Ubuntu.
#
#   slurm.sh up       install slurm-wlm and munge if they are missing, start the daemons, wait for the nodes
#   slurm.sh down     cancel all jobs and stop the daemons, by the pids they wrote
#   slurm.sh wipe     down, and remove $SLURM_BED
#   slurm.sh status   nodes and jobs
#
# Needs no systemd and no cgroups. Everything but munge's socket lives in $SLURM_BED. Debian's Slurm is built with
# --enable-multiple-slurmd: one slurmd a virtual node, each in a UTS namespace of its own, so that
# `hostname` in a job is the node's name. ACCOUNTING=1 adds slurmdbd on MariaDB, for sacct.
set -euo pipefail

P=${SLURM_BED:-/tmp/parslfl-slurm}
NODES=${SLURM_NODES:-4}
CPUS=${SLURM_CPUS:-4}
ACCOUNTING=${ACCOUNTING:-0}
HOST=$(hostname -s)
SQL=$P/mysql-run/sock
export SLURM_CONF=$P/etc/slurm.conf

say() { echo "slurm test bed: $*" >&2; }

# runs PID NAME: the process lives (no zombie), and is what we think it is (pids are reused)
runs() { [[ "$(cat "/proc/$1/comm" 2>/dev/null)" == $2* && "$(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null)" != Z ]]; }

# alive PIDFILE NAME: the same for the process in the file
alive() { local pid; pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && runs "$pid" "$2"; }

# stop PIDFILE NAME: TERM, three seconds, KILL: that one process. slurmd removes its file long before it ends.
stop() {
  alive "$1" "$2" || return 0
  local pid
  pid=$(cat "$1")
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 30); do runs "$pid" "$2" || return 0; sleep 0.1; done
  kill -9 "$pid" 2>/dev/null || true
}

# wait_for TENTHS COMMAND: until it succeeds
wait_for() {
  local tenths=$1
  shift
  for _ in $(seq "$tenths"); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
  say "not in time: $*"
  return 1
}

install_packages() {
  local packages="slurmctld slurmd slurm-client munge"
  [ "$ACCOUNTING" = 0 ] || packages="$packages slurmdbd mariadb-server"
  # shellcheck disable=SC2086
  dpkg -s $packages >/dev/null 2>&1 && return 0
  # the packages' own services must not start: ours are started below
  local policy=/usr/sbin/policy-rc.d made=
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' > $policy; chmod +x $policy; made=1; }
  local options="-o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086
  apt-get $options $packages >/dev/null 2>&1 || { apt-get update -qq && apt-get $options $packages >/dev/null; }
  [ -z "$made" ] || rm -f $policy
}

configure() {
  mkdir -p "$P"/{etc,state,spool,log,run}
  chmod 755 "$P"
  for i in $(seq "$NODES"); do mkdir -p "$P/spool/node$i"; done
  local accounting="AccountingStorageType=accounting_storage/none"
  [ "$ACCOUNTING" = 0 ] ||
    accounting=$'AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost'
  cat > "$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
MpiDefault=pmi2
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
$accounting
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
JobRequeue=0
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=2
CompleteWait=0
MinJobAge=600
StateSaveLocation=$P/state
SlurmdSpoolDir=$P/spool/%n
SlurmctldPidFile=$P/run/slurmctld.pid
SlurmdPidFile=$P/run/slurmd-%n.pid
SlurmctldLogFile=$P/log/slurmctld.log
SlurmdLogFile=$P/log/slurmd-%n.log
NodeName=node[1-$NODES] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[17001-$((17000 + NODES))] CPUs=$CPUS RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
  grep -q '# parslfl-slurm$' /etc/hosts ||  # torch.distributed and MPI resolve their host name
    echo "127.0.0.1 $(seq -s' ' -f 'node%.0f' "$NODES") # parslfl-slurm" >> /etc/hosts
  ln -sfn "$SLURM_CONF" /etc/slurm/slurm.conf  # so that no command needs SLURM_CONF
}

start_munge() {
  munge -n 2>/dev/null | unmunge >/dev/null 2>&1 && return 0
  [ -s /etc/munge/munge.key ] || runuser -u munge -- /usr/sbin/mungekey
  install -d -o munge -g munge -m 0755 /run/munge
  runuser -u munge -- /usr/sbin/munged
  touch "$P/run/munge-is-ours"
  wait_for 50 sh -c 'munge -n | unmunge'
}

start_database() {
  alive "$P/mysql-run/pid" mariadbd && return 0
  install -d -o mysql -g mysql -m 0755 "$P/mysql" "$P/mysql-run"
  [ -d "$P/mysql/mysql" ] || mariadb-install-db --no-defaults --user=mysql --datadir="$P/mysql" \
    --auth-root-authentication-method=normal --skip-test-db > "$P/log/mysql-install.log" 2>&1
  setsid nohup mariadbd --no-defaults --user=mysql --datadir="$P/mysql" --socket="$SQL" \
    --pid-file="$P/mysql-run/pid" --log-error="$P/mysql-run/log" --skip-networking \
    --innodb-buffer-pool-size=64M > "$P/log/mariadbd.out" 2>&1 < /dev/null &
  wait_for 200 mariadb-admin --no-defaults -S "$SQL" ping
  mariadb --no-defaults -S "$SQL" -e "create database if not exists slurm_acct_db;
    create user if not exists 'slurm'@'localhost' identified by 'slurm';
    grant all on slurm_acct_db.* to 'slurm'@'localhost';"
}

start_accounting() {
  alive "$P/run/slurmdbd.pid" slurmdbd && return 0
  (
    umask 077
    printf '%s\n' AuthType=auth/munge DbdHost=localhost SlurmUser=root StorageType=accounting_storage/mysql \
      StorageHost=localhost StorageUser=slurm StoragePass=slurm StorageLoc=slurm_acct_db \
      "LogFile=$P/log/slurmdbd.log" "PidFile=$P/run/slurmdbd.pid" > "$P/etc/slurmdbd.conf"
  )
  MYSQL_UNIX_PORT=$SQL slurmdbd  # its client library takes the socket from this variable
  wait_for 100 sacctmgr -n show cluster
  [ -n "$(sacctmgr -nP show cluster test format=cluster)" ] || sacctmgr -i add cluster test >/dev/null
}

all_idle() { [ "$(sinfo -h -N -t idle,mixed,allocated -o %N | sort -u | wc -l)" = "$NODES" ]; }

up() {
  if [ -e /etc/slurm/slurm.conf ] && [ "$(readlink /etc/slurm/slurm.conf)" != "$SLURM_CONF" ]; then
    say "this machine has a Slurm of its own, which is left alone"
    return 1
  fi
  install_packages
  configure
  start_munge
  [ "$ACCOUNTING" = 0 ] || { start_database; start_accounting; }
  alive "$P/run/slurmctld.pid" slurmctld || slurmctld
  for i in $(seq "$NODES"); do
    alive "$P/run/slurmd-node$i.pid" slurmd || unshare --uts sh -c "hostname node$i && exec slurmd -N node$i"
  done
  wait_for 100 sh -c 'scontrol ping | grep -q UP'
  local node
  for node in $(sinfo -h -N -t down,drain -o %N | sort -u); do  # as a test left it
    scontrol update nodename="$node" state=resume 2>/dev/null || true
  done
  wait_for 300 all_idle
}

# stepds: this cluster's job steps that are left, told by the folder they run in
stepds() {
  local folder
  for folder in /proc/[0-9]*; do
    [[ "$(cat "$folder/comm" 2>/dev/null)" == slurmstepd && "$(readlink "$folder/cwd")" == "$P"/* ]] &&
      echo "${folder#/proc/}"
  done
  return 0
}

down() {
  [ -d "$P" ] || return 0
  local file pid
  if alive "$P/run/slurmctld.pid" slurmctld; then
    scancel --user="$(id -un)" || true
    wait_for 100 sh -c '[ -z "$(squeue -h -a)" ]' || true  # a step that outlives its controller waits for it
  fi
  for file in "$P"/run/slurmd-*.pid; do stop "$file" slurmd; done
  for pid in $(stepds); do kill -9 "$pid"; done
  stop "$P/run/slurmctld.pid" slurmctld
  stop "$P/run/slurmdbd.pid" slurmdbd
  stop "$P/mysql-run/pid" mariadbd
  [ ! -e "$P/run/munge-is-ours" ] || { stop /run/munge/munged.pid munged; rm "$P/run/munge-is-ours"; }
  sed '/# parslfl-slurm$/d' /etc/hosts > "$P/hosts" && cat "$P/hosts" > /etc/hosts  # often a bind mount: no mv
  [ "$(readlink /etc/slurm/slurm.conf)" != "$SLURM_CONF" ] || rm /etc/slurm/slurm.conf
}

case "${1:-}" in
  up) up ;;
  down) down ;;
  wipe) down; rm -rf "$P" ;;
  status) sinfo -N -l; squeue -l ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
