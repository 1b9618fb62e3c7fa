"""Train one architecture alone, as its supernet was trained: from scratch, or on from inherited weights."""
