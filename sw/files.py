"""Files that appear whole or not at all."""

import os
import secrets
from pathlib import Path


def write_whole(path: Path | str, data: bytes) -> Path:
    """Write a file; the path holds the old content or all of the new. Links are followed.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    final = Path(os.path.realpath(path))
    staged = final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with staged.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, final)
    except OSError as error:
        # The caller knows nothing of the other name.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    finally:
        staged.unlink(missing_ok=True)
    return Path(path)
