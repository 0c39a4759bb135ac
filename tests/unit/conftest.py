"""Names the unit tests that are more than that, so that `make test-unit` can leave them out.

They stay in this folder, because the coverage of the product is measured over it.
"""

from typing import Final

import pytest

_OUTSIDE: Final = frozenset(
    {
        # Servers and clients on loopback.
        *("test_api_access", "test_api_events", "test_api_push", "test_api_server", "test_api_try_camera", "test_api_uploads"),
        *("test_client", "test_client_cli", "test_client_docs", "test_client_live", "test_client_pictures", "test_coming_from"),
        *("test_commands_alerts", "test_commands_plain", "test_commands_streams", "test_commands_timeline", "test_hints"),
        *("test_live_egress", "test_live_hls", "test_live_http", "test_live_mjpeg", "test_live_tls", "test_onvif"),
        *("test_push_hub", "test_rtsp_session", "test_terminal_pictures", "test_worker_server"),
        # Processes.
        *("test_deploy_files", "test_import_rules", "test_live_camera_process", "test_live_camera_reader", "test_live_host"),
        # Simulations of a service under load, or over a long time.
        *("test_admission", "test_aggregator_exactly_once", "test_classifier_hot_swap", "test_ingest_reader"),
        # Networks that are loaded, videos that are encoded.
        *(
            "test_detector_own",
            "test_detector_own_shipped",
            "test_ingest_synthetic",
            "test_report_plot",
            "test_simulator_packets",
        ),
        *("test_training_detector", "test_training_export", "test_training_parts"),
    }
)
"""Modules whose tests open sockets, start processes, load networks, encode videos, or simulate a service for seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "unit" and item.path.stem in _OUTSIDE:
            item.add_marker("outside")
