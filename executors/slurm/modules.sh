# worker_init for environment modules and a virtual environment on a shared file system.
# A batch job's shell may know no `module` command yet.
[ -n "${MODULESHOME:-}" ] || source /etc/profile
module purge
module load python/3.11 cuda
source /shared/me/fl/bin/activate
