"""What a finished run would have learnt from under other settings: its stored rewards, shaped and compared anew."""
