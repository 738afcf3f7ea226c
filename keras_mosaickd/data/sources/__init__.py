"""What the name of a data set means: from the text of a flag to images and labels."""
