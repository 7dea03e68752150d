"""`python -m kd_ray.cli` is `kd-ray`."""

from kd_ray.cli import main

main()
