"""Conversations, documents, compared and labelled answers, and prompts: read, rendered, masked and
tokenised."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tunewright import Plugin, PluginOptions, hookimpl
from tunewright_dataset_chat.entry import Entry
from tunewright_dataset_chat.limits import MAX_RECORD_BYTES

if TYPE_CHECKING:
    from tunewright.run import Run
    from tunewright.types import Data, DataRequest
    from tunewright_dataset_chat.look import Preview, Stats


class Chat(Plugin):
    """Rows of token ids for every stage, from files, stores and hubs: conversations, documents,
    pairs of answers, labelled answers, and prompts.
    """

    class Options(PluginOptions):
        on_bad_row: Literal["error", "skip"] = "error"
        """What happens with a row that cannot be used. error: the run ends with its file and line.
        skip: it is left out and counted."""
        on_unread: Literal["warn", "error"] = "warn"
        """What happens with columns and message keys that a record holds and its format does not
        read. warn: they are named, with the number of rows. error: such a row is a bad row."""
        truncate: Literal["drop", "end", "start", "turns"] = "drop"
        """What happens with conversations longer than max_length. drop: they are left out and
        counted. end: they lose their end, the end token included. start: they lose their start.
        turns: they lose their oldest turns, never the system message. Documents are split into rows
        of max_length tokens instead."""
        mixing: Literal["concatenate", "interleave"] = "concatenate"
        """How sources are mixed. concatenate: an epoch has all rows of each source, times its
        weight. interleave: each source has a share of the epoch by weight, spread evenly."""
        stop: Literal["first", "all"] = "first"
        """When an interleaved epoch ends. first: when one source has given all its rows. all: when
        every source has; smaller ones are repeated."""
        validation: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)] | None = None
        """Share or number of the rows of `data` that are held out as the evaluation set
        `validation`."""
        max_record_bytes: int = Field(MAX_RECORD_BYTES, gt=0)
        """Largest record that is read, in bytes (default: 8 MiB). A tokenizer needs several hundred
        times as much memory. A longer record is a bad row."""
        workers: int = Field(1, gt=0, le=1024)
        """Processes that render and tokenize. 1: the main process, whose tokenizer uses all
        cores."""
        cache: str | None = Field(None, min_length=1)
        """Folder for prepared rows, relative to the recipe's folder. It may be deleted at any time.
        Default: data in the folder that the environment variable TUNEWRIGHT_CACHE names, else
        ~/.cache/tunewright/data."""
        prepared: str | None = Field(None, min_length=1)
        """Folder that `tunewright data prepare RECIPE --to FOLDER` wrote, from which rows are read
        in place of the sources. A recipe with another template, tokenizer, max_length or option is
        refused."""
        streaming: bool = False
        """Read rows of `data` during training and store nothing: for data larger than the disk, or
        endless. Needs training.max_steps. --resume reads what the epoch had already read once more,
        without rendering or tokenizing it."""
        shuffle_buffer: int = Field(10_000, gt=0, le=10_000_000)
        """Records in the shuffle buffer of streaming: the next one is drawn from it at random. 1:
        their order is kept."""

    Entry = Entry

    @hookimpl
    def build_dataset(self, run: "Run", request: "DataRequest") -> "Data":
        from tunewright_dataset_chat.build import build

        return build(run, request, self.options)

    def preview(self, run: "Run", request: "DataRequest", count: int) -> "Preview":
        """The first `count` rows as text with what is trained, and the lengths of all. For `data
        preview`."""
        from tunewright_dataset_chat.look import preview

        return preview(run, request, count)

    def stats(self, run: "Run", request: "DataRequest") -> "Stats":
        """What all rows have: lengths, turns, roles, duplicates, and what is dropped. For `data
        stats`."""
        from tunewright_dataset_chat.look import stats

        return stats(run, request)
