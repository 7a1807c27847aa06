"""What is on disk: datasets and checkpoints. The only home of h5py."""
