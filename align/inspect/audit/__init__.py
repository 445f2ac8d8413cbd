"""What rewards do to each other before anybody trains on them: agreement, noise, saturation, double counting, bias."""
