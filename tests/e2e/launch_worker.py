"""The command `tunewright train` of one host, on which launcher torchrun is to start processes.

Arguments: JSON of the recipe, and for each host its overrides and the network namespace that it
enters ("" for none).
"""

import json
import os
import sys

from e2e.host_worker import enter
from tunewright.cli import main
from tunewright.launch import VARIABLES

if __name__ == "__main__":
    recipe, overrides, namespaces = json.loads(sys.argv[1])
    host = int(os.environ["RANK"])
    for name in VARIABLES:
        del os.environ[name]
    if namespaces[host]:
        enter(namespaces[host])
    sys.argv = ["tunewright", "train", recipe, *overrides[host]]
    main()
