"""`torchrun -m fastmtl.worker JOB`: one rank of a multi-device fit, started by `fastmtl.training.fit.run_fit`."""

import pickle
import sys
from pathlib import Path

from fastmtl.training.fit import train

if __name__ == "__main__":
    train(pickle.loads(Path(sys.argv[1]).read_bytes()))
