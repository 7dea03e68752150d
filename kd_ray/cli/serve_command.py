"""The command that shows a store in a browser: serve."""

import click

from kd_ray.cli.base import Command, open_existing, say, store_option


@click.command("serve", cls=Command, example="kd-ray serve --store s3://lab/kd_ray")
@store_option
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; others than loopback need a token."
)
@click.option("--port", default=8080, show_default=True, type=int, help="Port to listen on; 0 takes any free one.")
@click.option(
    "--token",
    metavar="TOKEN",
    envvar="KD_RAY_SERVE_TOKEN",
    show_envvar=True,
    help="Who does not know it reads nothing. The variable is better: other users see the arguments of a process.",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    metavar="NAME",
    multiple=True,
    help="Further name under which browsers reach the site, such as that of a proxy.",
)
@click.option(
    "--root-path", metavar="PATH", default="", help="Path under which a proxy publishes the site, such as /kd-ray."
)
def serve_command(
    store_url: str, host: str, port: int, token: str | None, allowed_hosts: tuple[str, ...], root_path: str
) -> None:
    """Show the sweeps of a store in a browser, also while they run. It only reads; Ctrl-C ends it."""
    import asyncio
    import contextlib
    import gc
    from concurrent.futures import ThreadPoolExecutor

    from kd_ray.serve.options import ServeOptions
    from kd_ray.serve.snapshot import take_snapshot

    options = ServeOptions(
        host=host, port=port, token=token or None, allowed_hosts=allowed_hosts, root_path=root_path.rstrip("/")
    )
    store = open_existing(store_url)
    # Nothing of what the start makes is garbage; without a search for it, the first page is there a tenth sooner.
    gc.disable()
    # The store is listed while the server is imported; each takes half a second.
    lister = ThreadPoolExecutor(1)
    first = lister.submit(take_snapshot, store, None)
    first.add_done_callback(lambda _: gc.enable())
    lister.shutdown(wait=False)
    from kd_ray.serve.app import serve

    def ready(url: str) -> None:
        asks = " (asks for the token)" if options.token else ""
        say(f"store {store.url}: {url}{asks}\nCtrl-C ends it")

    # Ctrl-C is how it ends.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(store, options, ready=ready, first=first))
