"""DVC: stages, configuration, dvc.lock and the integrity of files."""
