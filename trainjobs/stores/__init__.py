"""Object stores behind one interface: a folder, S3, Google Cloud Storage, Azure Blob. Knows nothing of checkpoints."""
