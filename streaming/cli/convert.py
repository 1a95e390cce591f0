"""``streaming convert``"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from streaming.cli.output import Json, console, print_json, print_rows
from streaming.errors import ArgumentError
from streaming.units import human_bytes
from streaming.writers.convert import ConvertSummary, Job, Tokenizing, plan_parts, prepare, run
from streaming.writers.convert import Progress as Done
from streaming.writers.engines import get_engine

__all__ = ['convert']

T = TypeVar('T')
_STAGES = {'write': 'converting', 'scatter': 'shuffling', 'gather': 'writing'}
_Names = list[str] | None
# Between two pairs: there are commas in the shapes of encodings, too.
_NEXT_PAIR = re.compile(r',(?=[^,=]+=)')


def convert(
    source: Annotated[list[str], typer.Argument(metavar='SOURCE...', help='Paths, URLs or globs; or module:function.')],
    dest: Annotated[str, typer.Argument(metavar='DEST', help='Where the dataset goes: a path or URL.')],
    kind: Annotated[str | None, typer.Option(help='What the files are, where their names do not say it.')] = None,
    columns: Annotated[_Names, typer.Option(metavar='NAME=ENCODING,...', help='Encodings of columns. May be repeated.')] = None,
    select: Annotated[str | None, typer.Option(metavar='A,B', help='Columns to write. Default: all.')] = None,
    compression: Annotated[str | None, typer.Option(metavar='CODEC', help='Such as zstd or zstd:7.')] = None,
    hashes: Annotated[str | None, typer.Option(metavar='A,B', help='Such as xxh64. Default: none.')] = None,
    size_limit: Annotated[str, typer.Option(help='Of a shard before compression; 0 for none.')] = '64mb',
    split: Annotated[str | None, typer.Option(help='Sub-folder of DEST to write to.')] = None,
    splits: Annotated[
        str | None, typer.Option(metavar='NAME=SHARE,...', help='Sub-folders that samples are drawn for: train=0.98,val=0.02.')
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(metavar='MODULE:NAME', help='Called with each record: gives one in its place, several, or None for none.'),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar='MODULE:NAME', help='Or a tokenizer.json. Text becomes tokens.')
    ] = None,
    text_column: Annotated[str, typer.Option(help='The column that is tokenized.')] = 'text',
    window: Annotated[int | None, typer.Option(min=1, help='Tokens of a sample. Default: those of one text.')] = None,
    end_token: Annotated[int | None, typer.Option(help='Put after each text.')] = None,
    dtype: Annotated[str, typer.Option(help='Of tokens.')] = 'uint32',
    workers: Annotated[int | None, typer.Option('--workers', '-j', min=1, help='Processes. Default: one a core.')] = None,
    engine: Annotated[str | None, typer.Option(help='Do it on a cluster instead: ray, spark or dask.')] = None,
    limit: Annotated[str | None, typer.Option(metavar='N', help='Read only the first records: 1000, 10k.')] = None,
    shuffle_seed: Annotated[int | None, typer.Option(min=0, help='Shuffle all samples, in bounded memory.')] = None,
    on_error: Annotated[str, typer.Option(help="What becomes of a bad record: 'raise' or 'reject'.")] = 'raise',
    part_size: Annotated[str | None, typer.Option(help='Input that is done at a time. Default: 32mb to 256mb.')] = None,
    overwrite: Annotated[bool, typer.Option('--overwrite', help='Delete the dataset that is at DEST.')] = False,
    dry_run: Annotated[bool, typer.Option('--dry-run', help='Say what would be done, and stop.')] = False,
    json: Json = False,
) -> None:
    """Convert what you have into a dataset, on all cores. The same command goes on where an interrupted one stopped.

    SOURCE is Parquet, Arrow, JSONL, CSV or TSV (plain, gz, zst...), a folder of texts or of images (a class a sub-folder),
    WebDataset tars, a dataset that Hugging Face's save_to_disk has left, or a dataset of shards.

    \b
    Examples:
      streaming convert corpus.parquet data/corpus --compression zstd --hashes xxh64
      streaming convert 's3://raw/*.jsonl.zst' oci://bucket/corpus --shuffle-seed 7 --splits train=0.99,val=0.01
      streaming convert images/ oci://bucket/images --columns image=jpeg --on-error reject
      streaming convert texts.jsonl data/tokens --tokenizer tokenizer.json --window 2048 --dtype uint16
      streaming convert 's3://raw/**/*.parquet' oci://bucket/corpus --engine ray
      streaming convert data/old data/new --select tokens --size-limit 256mb
      streaming convert my_records:make data/made --function my_records:clean
    """
    on = None if engine is None else get_engine(engine)
    tokenizing = None
    if tokenizer is not None:
        tokenizing = Tokenizing(tokenizer=tokenizer, text_column=text_column, window=window, end_token=end_token, dtype=dtype)
    elif (window, end_token, text_column, dtype) != (None, None, 'text', 'uint32'):
        raise ArgumentError('--window, --end-token, --text-column and --dtype say how text becomes tokens: give --tokenizer too')
    job = prepare(
        source[0] if len(source) == 1 else source,
        dest,
        kind=kind,
        columns=_pairs([pair for text in columns or [] for pair in _split_pairs(text)], '--columns', str),
        select=_names(select),
        compression=compression,
        hashes=_names(hashes),
        size_limit=size_limit,
        split=split,
        splits=_pairs(_names(splits) or [], '--splits', float),
        function=function,
        tokenizing=tokenizing,
        limit=limit,
        shuffle_seed=shuffle_seed,
        on_error=on_error,
        part_bytes=part_size,
    )
    if dry_run:
        _say_plan(job, json)
        return
    if not json:
        _say_columns(job)
    with _Bar() as bar:
        summary = run(job, workers=workers, exist_ok=overwrite, on_progress=bar.update, engine=on)
    if json:
        print_json(summary)
    else:
        _say_summary(summary)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(',') if name.strip()]


def _split_pairs(text: str) -> list[str]:
    """The ``name=value`` of a list of them. A piece without the sign is the beginning of a name."""
    pairs: list[str] = []
    for piece in _NEXT_PAIR.split(text):
        if pairs and '=' not in pairs[-1]:
            pairs[-1] += f',{piece}'
        else:
            pairs.append(piece)
    return pairs


def _pairs(texts: Sequence[str], option: str, make: Callable[[str], T]) -> dict[str, T]:
    """What ``name=value`` texts say.

    Raises:
        ArgumentError: one is none.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition('=')
        try:
            if not equals or not name.strip():
                raise ValueError
            found[name.strip()] = make(value.strip())
        except ValueError:
            raise ArgumentError(f'{option} takes NAME=VALUE, got {text!r}') from None
    return found


def _say_columns(job: Job) -> None:
    """Show what is going to be written before that takes its time: on stderr, so that the outcome is alone on stdout."""
    typer.echo(f'{job.source.url} ({job.source.name}) to {job.dest.partition("?")[0]}', err=True)
    print_rows(sorted(job.columns.items()), head=('column', 'encoding'), stderr=True)


def _say_plan(job: Job, json: bool) -> None:
    parts = plan_parts(job)
    size = sum(part.bytes for part in parts)
    if json:
        print_json({'job': job.describe(), 'parts': len(parts), 'input_bytes': size})
        return
    typer.echo(f'{job.source.url} ({job.source.name}): {human_bytes(size)} in {len(parts):,} parts')
    print_rows(sorted(job.columns.items()), head=('column', 'encoding'))


def _say_summary(summary: ConvertSummary) -> None:
    rows: Mapping[str, Any] = {
        'dataset': summary.url,
        'samples': f'{summary.samples:,}',
        **{f'samples in {split}': f'{count:,}' for split, count in summary.samples_by_split.items() if split},
        'shards': f'{summary.shards:,}',
        'bytes': f'{human_bytes(summary.raw_bytes)}, stored {human_bytes(summary.stored_bytes)}',
        'records read': f'{summary.records:,}',
        'bad records': f'{summary.rejected:,}, in {summary.url}/rejected' if summary.rejected else '',
        'tokens left over': f'{summary.dropped_tokens:,}' if summary.dropped_tokens else '',
        'parts': f'{summary.parts:,}' + (f', {summary.resumed_parts:,} by earlier runs' if summary.resumed_parts else ''),
        'time': f'{summary.seconds:.1f} s' if summary.seconds else 'none: it was done already',
        'speed': f'{summary.records / summary.seconds:,.0f} records/s' if summary.seconds and not summary.resumed_parts else '',
    }
    print_rows([(name, value) for name, value in rows.items() if value])


class _Bar:
    """How far it is, on stderr, where somebody looks."""

    def __init__(self) -> None:
        out = console(stderr=True)
        columns = (
            TextColumn('{task.description}'),
            BarColumn(),
            TextColumn('{task.percentage:>3.0f}%  {task.fields[speed]}'),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=out, transient=True, disable=not out.is_terminal)
        self._tasks: dict[str, Any] = {}

    def update(self, done: Done) -> None:
        """Show how far it is."""
        if done.stage not in self._tasks:
            self._tasks[done.stage] = self._progress.add_task(_STAGES.get(done.stage, done.stage), total=None, speed='')
        seconds = max(done.seconds, 1e-3)
        records = f'{done.records / seconds:,.0f} records/s, ' if done.records else ''
        speed = f'{records}{human_bytes(round(done.sample_bytes / seconds))}/s, part {done.parts:,} of {done.total_parts:,}'
        self._progress.update(
            self._tasks[done.stage], completed=done.input_bytes, total=max(1, done.total_input_bytes), speed=speed
        )

    def __enter__(self) -> '_Bar':
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
