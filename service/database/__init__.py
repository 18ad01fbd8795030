"""Engine, tables, migrations, lease and backup."""
