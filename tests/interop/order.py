"""Which files of this folder take long. They begin first, so that no long one is alone at the end."""

# Seconds, measured 2026-11-27 on two cores with four tests at a time. Files that take less than a minute are not here.
SECONDS = {
    "test_large_files.py": 330,
    "test_large_folders.py": 300,
    "test_restart.py": 290,
    "test_hostile_peers.py": 280,
    "test_killed.py": 240,
    "test_restore.py": 200,
    "test_changes.py": 190,
    "test_store_weather.py": 180,
    "test_way_back.py": 150,
    "test_busy_folder.py": 140,
    "test_bad_input.py": 130,
    "test_round_trip.py": 130,
    "test_untrusted_to_untrusted.py": 120,
    "test_several_peers.py": 100,
    "test_soak.py": 100,
    "test_store_images.py": 100,
    "test_stateless.py": 100,
    "test_vectors.py": 100,
    "test_hostile_dice.py": 90,
    "test_never_together.py": 80,
    "test_two_gateways.py": 80,
    "test_healing.py": 70,
    "test_compat.py": 70,
    "test_cold_start.py": 60,
}
