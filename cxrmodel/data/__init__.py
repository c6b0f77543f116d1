"""From a root to verified pixels, an index, a split, and a ledger of everything left out."""
