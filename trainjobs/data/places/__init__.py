"""Where data lies: a folder, a bucket, a dataset of the Hugging Face hub, behind one interface; and what of it is kept on this machine."""
