"""Dataset plugin: reads, converts, renders, masks and tokenises conversations, documents,
preference data and prompts."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from tunewright import Dataset, PluginOptions, Problem, hookimpl
from tunewright.types import RunContext
from tunewright_dataset_chat.entry import Entry
from tunewright_dataset_chat.limits import MAX_RECORD_BYTES, VALIDATION

if TYPE_CHECKING:
    from tunewright.check import Resolved
    from tunewright.errors import RowError
    from tunewright.types import Data, DataRequest, Row, RowKind
    from tunewright_dataset_chat.look import Preview, Stats

_HARMLESS: dict[str, Any] = {"may_change": True}  # in a resumed run


class Chat(Dataset):
    """Tokenised data for every stage, from files, cloud storage and hubs: conversations, documents,
    preference pairs, labelled answers, and prompts."""

    class Options(PluginOptions):
        on_bad_row: Literal["error", "skip"] = "error"
        """How to handle unusable records. error: stop, with file and line. skip: drop and count
        them."""
        on_unread: Literal["warn", "error"] = "warn"
        """How to handle columns and message keys that the format does not read. warn: report them,
        with the number of records. error: such records are unusable."""
        truncate: Literal["drop", "end", "start", "turns"] = "drop"
        """How to handle conversations longer than max_length. drop: drop and count them. end: cut
        their end, including the stop token. start: cut their start. turns: remove their oldest
        turns, but not the system message. Documents are always split into pieces of max_length
        tokens."""
        mixing: Literal["concatenate", "interleave", "online"] = "concatenate"
        """How sources are mixed. concatenate: an epoch has all examples of each source, times its
        weight. interleave: each source has a share of the epoch by weight, spread evenly. online:
        each step trains on one source, drawn by their losses so far (ODM, arXiv:2312.02406)."""
        order: Literal["shuffled", "length", "given", "ascending", "descending"] = "shuffled"
        """Order of examples in each epoch (curriculum). length: short ones first. given: as the
        sources have them, one after the other. ascending, descending: by the column order_by, the
        smallest or the largest numbers first. All but shuffled go with training.batching:
        random."""
        order_by: str | None = Field(None, min_length=1)
        """Column that holds a number in each record of `data`, such as a difficulty, for order:
        ascending or descending."""
        stop: Literal["first", "all"] = "first"
        """When an interleaved epoch ends. first: when one source is exhausted. all: when all
        sources are; smaller ones are repeated."""
        validation: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)] | None = None
        """Share or number of examples of `data` that are held out as the evaluation set
        `validation`."""
        max_record_bytes: int = Field(MAX_RECORD_BYTES, gt=0)
        """Maximum size of a record, in bytes (default: 8 MiB); larger ones are unusable.
        Tokenizers need several hundred times as much memory."""
        workers: int = Field(1, gt=0, le=1024, json_schema_extra=_HARMLESS)
        """Processes that render and tokenize. 1: the main process, whose tokenizer uses all
        cores."""
        cache: str | None = Field(None, min_length=1, json_schema_extra=_HARMLESS)
        """Cache folder for prepared data, relative to the recipe's folder. It may be deleted at any
        time. Default: `data` in the folder given by the environment variable TUNEWRIGHT_CACHE, else
        ~/.cache/tunewright/data."""
        prepared: str | None = Field(None, min_length=1)
        """Folder written by `tunewright data prepare RECIPE --to FOLDER`, which replaces the
        sources. A recipe with another template, tokenizer, max_length or option is refused."""
        streaming: bool = False
        """Read `data` during training without storing it: for data larger than the disk, or without
        end. Needs training.max_steps. --resume re-reads the epoch so far, without rendering or
        tokenizing it."""
        shuffle_buffer: int = Field(10_000, gt=0, le=10_000_000)
        """Size of the shuffle buffer for streaming, in records. 1: no shuffling."""

        @model_validator(mode="after")
        def _orders_by_a_column(self) -> "Chat.Options":
            by_column = self.order in ("ascending", "descending")
            if by_column and self.order_by is None:
                raise ValueError(f"order: {self.order} needs order_by, the column of a number")
            if self.order_by is not None and not by_column:
                raise ValueError("order_by does nothing without order: ascending or descending")
            return self

    Entry = Entry

    @hookimpl
    def build_dataset(self, run: RunContext, request: "DataRequest") -> "Data":
        from tunewright_dataset_chat.build import build

        return build(run, request, self.options)

    def objections(self, recipe: "Resolved") -> Iterator[Problem]:
        """Orders that batching would undo, and sources of a dataset_info.json that are not to be
        found."""
        from tunewright_dataset_chat.dataset_info import problems
        from tunewright_dataset_chat.ordering import problems as problems_of_order

        yield from problems_of_order(self.at, self.options, recipe)
        if recipe.looked and not self.options.prepared:
            yield from problems(recipe)

    def eval_sets(self) -> tuple[str, ...]:
        """`validation`, where rows are held out."""
        return (VALIDATION,) if self.options.validation else ()

    def first_records(self, entry: Any, root: Path) -> list[Any]:
        """The first records of local files; none of what was prepared before."""
        from tunewright_dataset_chat.source import first_records

        return [] if self.options.prepared else first_records(entry, root)

    def unread(self, run: RunContext, request: "DataRequest") -> list[str]:
        """A line per source on what no format reads in the first 1,000 records of local files."""
        from tunewright_dataset_chat.source import unread_lines

        return [] if self.options.prepared else unread_lines(run, request)

    def examples(
        self, run: RunContext, request: "DataRequest", kinds: "tuple[RowKind, ...]"
    ) -> "Iterator[Row | RowError]":
        from tunewright_dataset_chat.examples import examples

        return examples(run, request, kinds, self.options.max_record_bytes)

    def preview(self, run: RunContext, request: "DataRequest", count: int) -> "Preview":
        """The first `count` rows as text with trained spans, and the lengths of all rows. For `data
        preview`."""
        from tunewright_dataset_chat.look import preview

        return preview(run, request, count)

    def stats(self, run: RunContext, request: "DataRequest") -> "Stats":
        """Statistics of all rows: lengths, turns, roles, duplicates, and dropped rows. For `data
        stats`."""
        from tunewright_dataset_chat.look import stats

        return stats(run, request)
