"""The driver that the page on writing one shows, as it stands there: from its entry point to the kubelet and back."""

import asyncio
import re
from pathlib import Path

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import until

PAGE = Path(__file__).parents[2] / "docs" / "drivers" / "writing.md"
CANDLES = "test.devd.io/candles"
FOLDER = "/run/candles"
"""Where the page's candles stand; the test has them elsewhere."""
CONFIG = f"""resources:
  - name: {CANDLES}
    driver: candle
    probe: {{period: 200ms, timeout: 1s}}
    reset: {{kind: driver, method: light}}
    discovery: {{period: 500ms, linger: 1s}}
"""


def _block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def _install(packages: Path, candles: Path) -> None:
    """Install the page's driver as a package manager would."""
    info = packages / "candle-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: candle\nVersion: 1.0\n")
    heading, line = _block("toml").strip().splitlines()
    assert heading == '[project.entry-points."devd.drivers"]'
    (info / "entry_points.txt").write_text("[devd.drivers]\n" + line.replace('"', "") + "\n")
    code = _block("python")
    assert code.count(FOLDER) == 1
    (packages / "candle_driver.py").write_text(code.replace(FOLDER, str(candles)))


def test_the_pages_driver_works() -> None:
    """It is found, judged, reset and judged again: without any of what is optional nothing is missed."""

    async def run() -> None:
        rig = Rig("resources: []")
        rig.root.chmod(0o755)
        candles = rig.root / "candles"
        candles.mkdir()
        candle = candles / "one"
        candle.write_text("burns")
        _install(rig.root / "packages", candles)
        rig.environment["PYTHONPATH"] = str(rig.root / "packages")
        rig.config.write_text(CONFIG, encoding="utf-8")
        async with rig:
            await rig.healthy(CANDLES)
            held = await rig.kubelet.allocate(CANDLES)
            candle.write_text("smokes")
            await rig.unhealthy(CANDLES)
            reason = "flame: it says 'smokes' (the candle went out; light it again)"
            await until(lambda: rig.device("one")["reason"] == reason, "the reason")
            assert await rig.kubelet.pre_start(CANDLES, held.ids) is not None
            await rig.healthy(CANDLES)
            assert candle.read_text() == "burns"
            signals = rig.device("one")["signals"]
            assert signals == {"offered": ["flame"], "checked": ["flame"], "notes": {}}
            assert rig.journal("one", "crash") == []
            assert rig.kubelet.violations == []

    asyncio.run(run())
