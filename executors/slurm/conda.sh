# worker_init for conda. A batch job's shell has not read ~/.bashrc, so `conda activate` must be made known first.
module load conda
source "$(conda info --base)/etc/profile.d/conda.sh"
conda activate fl
