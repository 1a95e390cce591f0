"""Finding the credential: what the caller gave, what the environment says, the config file, where the machine is.

The first that exists is taken, and if it is broken that is an error: nobody shall read as somebody else by accident. If none
exists, one error says what was looked for.
"""

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

from streaming.errors import CredentialsError
from streaming.store.oci.credentials import (
    Credential,
    KeyCredential,
    NoCredential,
    SignerCredential,
    TokenFileCredential,
    load_key,
)
from streaming.store.oci.options import AUTHS, OCIOptions
from streaming.store.oci.principals import find_metadata_service, make_principal

__all__ = ['endpoint_of', 'find_credential', 'find_region']

# Entry of a profile -> the variable of the CLI that goes before it.
_ENTRY_VARIABLES = {
    'user': 'OCI_CLI_USER',
    'tenancy': 'OCI_CLI_TENANCY',
    'fingerprint': 'OCI_CLI_FINGERPRINT',
    'key_file': 'OCI_CLI_KEY_FILE',
    'key_content': 'OCI_CLI_KEY_CONTENT',
    'pass_phrase': 'OCI_CLI_PASSPHRASE',
    'security_token_file': 'OCI_CLI_SECURITY_TOKEN_FILE',
    'region': 'OCI_CLI_REGION',
}


def find_credential(options: OCIOptions) -> Credential:
    """The credential to sign with.

    Raises:
        CredentialsError: there is none, or the one that was asked for cannot be had; the message says what was tried.
    """
    if options.signer is not None:
        return SignerCredential(_make_signer(options), "the caller's signer")
    if options.config is not None:
        return _from_entries(dict(options.config), "the caller's config", options, options.auth)
    if options.auth == 'par' or options.par_url is not None:
        return NoCredential('the pre-authenticated request', options.region)
    explicit = options.config_file is not None or options.profile is not None
    auth = options.auth or (None if explicit else _auth_of_environment())
    if auth in ('api_key', 'security_token'):
        return _config_login(options, auth)
    if auth is not None:
        return make_principal(auth, options)
    if explicit:
        return _config_login(options, None)
    if os.environ.get('OCI_RESOURCE_PRINCIPAL_VERSION'):
        return make_principal('resource_principal', options)
    tried = ['OCI_CLI_AUTH and OCI_RESOURCE_PRINCIPAL_VERSION are not set']
    found = _from_file(options, tried)
    if found is not None:
        return found
    if find_metadata_service() is not None:
        return make_principal('instance_principal', options)
    tried.append('no metadata service of an OCI instance answered within a second')
    raise CredentialsError(
        f'{options.url}: no credentials were found. Tried: {"; ".join(tried)}. '
        'Give a config file (?config_file=, ?profile=), ?auth=, or the option signer'
    )


def find_region(options: OCIOptions, credential: Credential) -> str:
    """The region's name.

    Raises:
        CredentialsError: nobody says which.
    """
    in_environment = os.environ.get('OCI_CLI_REGION') or os.environ.get('OCI_REGION')
    region = options.region or credential.region or in_environment or credential.machine_region
    if not region:
        raise CredentialsError(
            f'{options.url}: no region is known: give ?region= (or ?endpoint=) in the URL, a region in {credential.source}, '
            'or OCI_REGION'
        )
    return region


def endpoint_of(region: str) -> str:
    """``https://host`` of the service in a region, whichever realm that is in; short names (``fra``) are taken."""
    from oci import regions

    name: str = regions.get_region_from_short_name(region)
    endpoint: str = regions.endpoint_for(
        'object_storage', region=name, service_endpoint_template='https://objectstorage.{region}.{secondLevelDomain}'
    )
    return endpoint


def _auth_of_environment() -> str | None:
    auth = os.environ.get('OCI_CLI_AUTH')
    if not auth:
        return None
    auth = {'oke_workload_identity': 'oke_workload'}.get(auth, auth)
    if auth not in AUTHS:
        raise CredentialsError(f'OCI_CLI_AUTH is {auth!r}; there are {", ".join(AUTHS)}')
    return auth


def _make_signer(options: OCIOptions) -> object:
    signer = options.signer
    # A signer is callable, too, but takes a request.
    return signer if hasattr(signer, 'do_request_sign') or not callable(signer) else signer()


# The config file


def _config_path(options: OCIOptions) -> tuple[Path, bool]:
    """The config file, and whether somebody named it."""
    for named in (options.config_file, os.environ.get('OCI_CLI_CONFIG_FILE')):
        if named:
            return Path(named).expanduser(), True
    default = Path('~/.oci/config').expanduser()
    fallback = os.environ.get('OCI_CONFIG_FILE')
    if fallback and not default.is_file():
        return Path(fallback).expanduser(), True
    return default, False


def _from_file(options: OCIOptions, tried: list[str], auth: str | None = None) -> Credential | None:
    """The credential of a profile, with the CLI's variables before its entries; None where there is no file."""
    path, named = _config_path(options)
    profile = options.profile or os.environ.get('OCI_CLI_PROFILE') or 'DEFAULT'
    overrides: dict[str, str] = {}
    if options.config_file is None and options.profile is None:
        overrides = {entry: os.environ[name] for entry, name in _ENTRY_VARIABLES.items() if os.environ.get(name)}
    source = f'{path}, profile {profile}'
    try:
        text = path.read_text()
    except OSError as error:
        if {'user', 'tenancy', 'fingerprint'} <= set(overrides):
            return _from_entries(overrides, 'the OCI_CLI_* variables', options, auth)
        tried.append(f'{path}: {error.strerror}')
        if named or not isinstance(error, FileNotFoundError):
            raise CredentialsError(f'{options.url}: the config file {path} cannot be read: {error.strerror}') from error
        return None
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise CredentialsError(f'{options.url}: {path} is not a config file: {type(error).__name__}') from error
    if profile not in parser:
        known = ', '.join([*(['DEFAULT'] if parser.defaults() else []), *parser.sections()])
        raise CredentialsError(f'{options.url}: {path} has no profile {profile}; there are: {known or "none"}')
    return _from_entries({**parser[profile], **overrides}, source, options, auth)


def _from_entries(entries: Mapping[str, str], source: str, options: OCIOptions, auth: str | None = None) -> Credential:
    """The credential that a profile's entries describe.

    Raises:
        CredentialsError: an entry is missing or its file cannot be read.
    """
    source = f'{options.url}: {source}'
    if entries.get('authentication_type'):
        from oci.util import get_signer_from_authentication_type

        return SignerCredential(get_signer_from_authentication_type(dict(entries)), source, entries.get('region'))
    token_file = entries.get('security_token_file') if auth != 'api_key' else None
    needed = ['security_token_file'] if auth == 'security_token' else []
    needed += [] if token_file or needed else ['user', 'tenancy', 'fingerprint']
    missing = [name for name in needed if not entries.get(name)]
    if not entries.get('key_file') and not entries.get('key_content'):
        missing.append('key_file')
    if missing:
        raise CredentialsError(f'{source}: {" and ".join(missing)} missing')
    key = load_key(_key_bytes(entries, source), entries.get('pass_phrase'), source)
    region = entries.get('region')
    if token_file:
        return TokenFileCredential(Path(token_file).expanduser(), key, source, region)
    return KeyCredential(f'{entries["tenancy"]}/{entries["user"]}/{entries["fingerprint"]}', key, source, region)


def _key_bytes(entries: Mapping[str, str], source: str) -> bytes:
    if entries.get('key_content'):
        return entries['key_content'].encode()
    path = Path(entries['key_file']).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(f'{source}: the key_file {path}: {error.strerror}') from error


def _config_login(options: OCIOptions, auth: str | None) -> Credential:
    tried: list[str] = []
    found = _from_file(options, tried, auth)
    if found is None:
        raise CredentialsError(f'{options.url}: no credentials were found. Tried: {tried[0]}')
    return found
