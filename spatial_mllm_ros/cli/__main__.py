"""`python -m spatial_mllm_ros.cli`, for machines where the command is not on the PATH."""

import sys

from spatial_mllm_ros.cli import main

sys.exit(main())
