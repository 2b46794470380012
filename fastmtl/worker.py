"""`torchrun -m fastmtl.worker JOB`: one rank of a multi-device job, started by `training.fit.run_distributed`."""

import os
import pickle
import sys
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see fastmtl.cli.messages.set_up_process
    import torch

    rank = int(os.environ["LOCAL_RANK"])
    if rank < torch.cuda.device_count():
        torch.cuda.set_device(rank)  # so that "cuda" means this rank's own GPU
    pickle.loads(Path(sys.argv[1]).read_bytes()).run()
