"""``stt keygen``: a new seed, as text."""

from __future__ import annotations

from pathlib import Path

import click

from stt_cli.seed_files import write_seed_file
from stt_core import encode_seed, generate_seed


@click.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A new file for it, readable by its owner alone.",
)
def keygen(out: Path | None) -> None:
    """Make a new seed: 32 random bytes as text with a checksum.

    The same seed goes to all peers, by a way that only they can read. Without --out it is printed.
    """
    seed = generate_seed()
    if out is None:
        click.echo(encode_seed(seed))
        return
    try:
        write_seed_file(out, seed)
    except FileExistsError:
        raise click.ClickException(f"{out} is there already, and is kept") from None
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}") from None
    click.echo(f"wrote a new seed to {out}")
