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
        """a row that cannot be used ends the run with its file and line, or is left out and counted
        """
        on_unread: Literal["warn", "error"] = "warn"
        """columns and message keys that a record holds and its format does not read: said, with the
        number of rows; or such a row cannot be used"""
        truncate: Literal["drop", "end", "start", "turns"] = "drop"
        """conversations longer than max_length are dropped and counted, lose their end (and with it
        the end token), lose their start, or lose their oldest turns (never the system message);
        documents are split into rows of max_length tokens instead"""
        mixing: Literal["concatenate", "interleave"] = "concatenate"
        """an epoch has all rows of each source, times its weight; or shares of each by weight,
        spread evenly"""
        stop: Literal["first", "all"] = "first"
        """an interleaved epoch ends when the first source has given all its rows, or when every
        source has, and the smaller ones have given theirs again"""
        validation: Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)] | None = None
        """this share of the rows of `data`, or so many of them, are not trained on, but make the
        evaluation set `validation`"""
        max_record_bytes: int = Field(MAX_RECORD_BYTES, gt=0)
        """Largest record that is read, in bytes (default: 8 MiB). A tokenizer needs several hundred
        times as much memory. A longer record is a bad row."""
        workers: int = Field(1, gt=0, le=1024)
        """processes that render and tokenise; 1 is this one, whose tokenizer uses all cores"""
        cache: str | None = Field(None, min_length=1)
        """folder for prepared rows, from the recipe's folder; ~/.cache/tunewright/data where not
        named, or data in the folder that the environment variable TUNEWRIGHT_CACHE names. It may be
        deleted at any time"""
        prepared: str | None = Field(None, min_length=1)
        """folder that `tunewright data prepare RECIPE --to FOLDER` wrote: rows are taken from it;
        sources need not be there; a recipe with another template, tokenizer, length or option is
        refused"""
        streaming: bool = False
        """rows of `data` are read while training goes on, and nothing is stored: for data larger
        than the disk, or without end; needs training.max_steps. --resume reads what the epoch had
        read before once more, without rendering or tokenising it"""
        shuffle_buffer: int = Field(10_000, gt=0, le=10_000_000)
        """records that streaming holds in memory, out of which each next one is taken at random; 1
        keeps their order"""

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
