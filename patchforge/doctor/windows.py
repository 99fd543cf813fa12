"""Gathers what Windows says of a machine without an administrator: one run of PowerShell, which asks CIM and PnP.

Classes and properties are as Microsoft documents them: Win32_VideoController, Win32_OperatingSystem,
Win32_DeviceMemoryAddress, Win32_PnPAllocatedResource (learn.microsoft.com, CIMWin32 Provider), and for a PCI device
DEVPKEY_Device_Address, which has its device number in the upper and its function in the lower 16 bits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from patchforge import processes
from patchforge.doctor.facts import Gpu, MachineFacts

SECONDS = 90  #: PowerShell's first start after Windows' takes several
_PROGRAM = "System32/WindowsPowerShell/v1.0/powershell.exe"
_LIBRARIES = ("ze_loader.dll",)
_PCI = re.compile(r"PCI\\VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", re.IGNORECASE)
_KIB = 1 << 10
#: Each part alone: what one of them is refused, the others still tell. Dates in ISO 8601 whatever the user's calendar.
_SCRIPT = r"""
$ErrorActionPreference = 'Stop'; $ProgressPreference = 'SilentlyContinue'
$told = @{}; $why = @{}
try { [Console]::OutputEncoding = [Text.UTF8Encoding]::new($false) } catch { }
try { $told.system = Get-CimInstance Win32_OperatingSystem | Select-Object Caption, Version, TotalVisibleMemorySize,
    FreePhysicalMemory, SizeStoredInPagingFiles } catch { $why.system = [string]$_ }
try { $told.gpus = @(Get-CimInstance Win32_VideoController | Select-Object Name, PNPDeviceID, DriverVersion,
    ConfigManagerErrorCode, @{ Name = 'DriverDate'; Expression = {
    $_.DriverDate.ToUniversalTime().ToString('yyyy-MM-dd', [Globalization.CultureInfo]::InvariantCulture) } })
} catch { $why.gpus = [string]$_ }
try { $told.places = @($told.gpus | Where-Object PNPDeviceID -like 'PCI\*' | ForEach-Object {
    Get-PnpDeviceProperty -InstanceId $_.PNPDeviceID -KeyName DEVPKEY_Device_BusNumber, DEVPKEY_Device_Address |
    Select-Object InstanceId, KeyName, Data }) } catch { $why.places = [string]$_ }
try { $told.ranges = @(Get-CimInstance Win32_DeviceMemoryAddress | Select-Object StartingAddress, EndingAddress)
    $told.owners = @(Get-CimInstance Win32_PnPAllocatedResource |
    Where-Object { $_.Dependent.DeviceID -like 'PCI\*' -and $null -ne $_.Antecedent.StartingAddress } | ForEach-Object {
    @{ DeviceID = $_.Dependent.DeviceID; StartingAddress = $_.Antecedent.StartingAddress } })
} catch { $why.ranges = [string]$_ }
@{ told = $told; why = $why } | ConvertTo-Json -Depth 4 -Compress
"""

Rows = Sequence[Mapping[str, Any]]


def examine(environment: Mapping[str, str], user: str) -> MachineFacts:
    """Never fails: what Windows does not tell is left at its default, and ``unread`` says why."""
    root = Path(environment.get("SYSTEMROOT", "C:/Windows"))
    told, why = _ask(root, environment)
    system: Mapping[str, Any] = told.get("system") or {}
    libraries = {name: place for name in _LIBRARIES if (place := root / "System32" / name).is_file()}
    return MachineFacts(
        system="win32",
        kernel=f"{system.get('Caption', '')} {system.get('Version', '')}".strip(),
        pci="gpus" in told,
        unread=why,
        user=user,
        gpus=tuple(sorted(_gpus(told), key=lambda gpu: gpu.address)),
        libraries={name: str(place) for name, place in libraries.items()},
        ram=_bytes(system, "TotalVisibleMemorySize"),
        available=_bytes(system, "FreePhysicalMemory"),
        swap=_bytes(system, "SizeStoredInPagingFiles"),
    )


def _ask(root: Path, environment: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What PowerShell told, and why the rest is not there."""
    command = [str(root / _PROGRAM), "-NoLogo", "-NoProfile", "-NonInteractive", "-Command", _SCRIPT]
    own = processes.environment(inherited=environment)
    try:
        done = processes.run(command, env=own, stdin=processes.DEVNULL, capture_output=True, timeout=SECONDS)
    except processes.TimeoutExpired:
        return {}, {"PowerShell": f"it did not answer within {SECONDS} seconds"}
    except OSError as error:
        return {}, {"PowerShell": f"it cannot be started: {error.strerror or error}"}
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        document = json.loads(done.stdout.decode(errors="replace"))
        told = {name: value for name, value in document["told"].items() if value is not None}
        return told, {str(name): " ".join(str(text).split()) for name, text in document["why"].items()}
    said = (done.stderr or done.stdout).decode(errors="replace").split("\n")[0].strip()
    return {}, {"PowerShell": said or f"it told nothing and ended with status {done.returncode}"}


def _gpus(told: Mapping[str, Any]) -> Iterator[Gpu]:
    """What is on the PCI bus; adapters of remote desktops and the like are not."""
    for row in _rows(told, "gpus"):
        device = str(row.get("PNPDeviceID") or "")
        if ids := _PCI.match(device):
            yield Gpu(
                address=_address(_rows(told, "places"), device),
                vendor=int(ids[1], 16),
                device=int(ids[2], 16),
                model=str(row.get("Name") or ""),
                version=str(row.get("DriverVersion") or ""),
                date=str(row.get("DriverDate") or ""),
                problem=_number(row, "ConfigManagerErrorCode"),
                bar=_largest(told, device),
            )


def _address(places: Rows, device: str) -> str:
    """As Linux writes it; "" where Windows does not tell it."""
    data = {str(row.get("KeyName")): row.get("Data") for row in places if _same(row.get("InstanceId"), device)}
    bus, place = data.get("DEVPKEY_Device_BusNumber"), data.get("DEVPKEY_Device_Address")
    if not isinstance(bus, int) or not isinstance(place, int):
        return ""
    return f"0000:{bus:02x}:{place >> 16:02x}.{place & 0xFFFF:x}"


def _largest(told: Mapping[str, Any], device: str) -> int:
    """The largest range of memory that the device has; 0 where none is told."""
    starts = {
        _number(row, "StartingAddress") for row in _rows(told, "owners") if _same(row.get("DeviceID"), device)
    } - {0}
    ranges = ((_number(row, "StartingAddress"), _number(row, "EndingAddress")) for row in _rows(told, "ranges"))
    return max((last - first + 1 for first, last in ranges if first in starts and last > first), default=0)


def _same(named: object, device: str) -> bool:
    return str(named).casefold() == device.casefold()


def _rows(told: Mapping[str, Any], name: str) -> Rows:
    rows = told.get(name)
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _bytes(row: Mapping[str, Any], name: str) -> int:
    return _number(row, name) * _KIB


def _number(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    return value if isinstance(value, int) else 0
