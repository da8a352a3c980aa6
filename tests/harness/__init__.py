"""What tests share: a private suite of real programs, marks, waiting."""
