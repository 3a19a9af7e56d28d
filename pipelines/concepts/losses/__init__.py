"""What trainings minimise: functions of one forward, a value per sample."""
