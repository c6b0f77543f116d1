"""`cxrmodel`: use a trained model from the command line."""

from __future__ import annotations

from cxrmodel.inference.command_line import main

if __name__ == "__main__":
    main()
