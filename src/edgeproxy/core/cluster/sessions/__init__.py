"""What sessions between nodes decide: when to dial, how much may wait, whom to let in."""
