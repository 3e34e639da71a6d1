"""The parts that talk to the database. `_sync` is generated from this folder."""
