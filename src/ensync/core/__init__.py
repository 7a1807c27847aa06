"""What everything else rests on: errors, signals, sharding, fusion, figures; no heavy library."""
