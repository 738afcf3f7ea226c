"""The one convention of label maps."""

# Label of the pixels that belong to no class: they count in no loss of labels and in no score.
VOID = 255
