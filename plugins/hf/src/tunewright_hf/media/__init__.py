"""Media: images, videos and audio, from files to the tensors of a batch.

A row names its media, and holds no pixels. Its column `media` is a list of structs {kind, path}, in
the order of the text; kind is image, video or audio, and path is relative to `Data.media_root`, or
absolute. A preference, unpaired or prompt row has the media of its prompt there; answers have none.

- `shapes.Shape`: size of a medium, by which its number of tokens is known.
- `decode.measure(kind, path) -> Shape` reads a file's header. Raises RowError.
- `decode.decode(kind, path, frames=()) -> Content` reads the medium itself, of a video the frames
  of these indices: ascending, some twice. Raises RowError.
- `expander.MediaProcessor.expand(rendered, shapes) -> Rendered` asks the model's processor for the
  tokens of each medium. `tokenization.encode.Tokeniser` puts them in place of the placeholder.
- `collation.MediaRows` makes a row's tensors, in data-loader workers.
"""
