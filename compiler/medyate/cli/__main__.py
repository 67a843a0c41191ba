# SPDX-License-Identifier: Apache-2.0
"""`python -m medyate.cli` is `medyate`."""

from medyate.cli.commands import main

main()
