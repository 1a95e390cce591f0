"""What boto3 knows of services, read in a fraction of the time: most of making a client is reading that."""

import gzip
import os
from typing import Any

import botocore.session
import msgspec
from botocore.loaders import JSONFileLoader, Loader

__all__ = ['Models']


class Models(Loader):
    """The descriptions that a session of botocore would find, where it would find them.

    Args:
        session: Of botocore; says where to look.
    """

    def __init__(self, session: botocore.session.Session) -> None:
        paths = list(session.get_component('data_loader').search_paths)
        super().__init__(paths, file_loader=_Files(), include_default_search_paths=False)
        self._services: list[str] | None = None

    def list_available_services(self, type_name: str) -> list[str]:
        # botocore looks into each of 400 folders, to be able to say that there is no such service. Those we ask for are there.
        if self._services is None:
            folders = filter(os.path.isdir, self.search_paths)
            self._services = sorted({name for folder in folders for name in os.listdir(folder)})
        return self._services


class _Files(JSONFileLoader):
    """Reads JSON by msgspec."""

    def load_file(self, file_path: str) -> Any:
        for opened, name in ((open, f'{file_path}.json'), (gzip.open, f'{file_path}.json.gz')):
            try:
                with opened(name, 'rb') as file:
                    return msgspec.json.decode(file.read())
            except FileNotFoundError:
                continue
            except (OSError, msgspec.DecodeError):
                break  # botocore knows what it makes of that: of a folder that may not be read, say, nothing
        return super().load_file(file_path)
