"""Where a sweep runs: this process, or Ray."""
