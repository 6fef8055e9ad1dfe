"""The node's network: a namespace, a veth pair, and the way out for its pods."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sandbox.places import MTU, Places
from sandbox.programs import run

_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")


def complete(places: Places) -> bool:
    """Tell whether both ends are there, and the route that is made last."""
    show = ["ip", "route", "show", places.services, "dev", places.link]
    route = subprocess.run(show, capture_output=True, text=True, check=False)
    return bool(route.stdout.strip()) and os.path.ismount(places.namespace)


def up(places: Places) -> None:
    """Make the namespace and all on both its ends; what was there before goes."""
    down(places)
    places.namespace.touch()
    run("making a network namespace", "unshare", f"--net={places.namespace}", "true")
    # The far end is made where it belongs: in between, its name could meet another's on this side.
    far = ("peer", "name", "eth0", "mtu", str(MTU), "netns", str(places.namespace))
    _ip("link", "add", places.link, "mtu", str(MTU), "type", "veth", *far)
    _ip("addr", "add", f"{places.gateway}/30", "dev", places.link)
    _ip("link", "set", places.link, "up")
    _inside(places, "addr", "add", f"{places.node}/30", "dev", "eth0")
    _inside(places, "link", "set", "eth0", "up")
    _inside(places, "link", "set", "lo", "up")
    _inside(places, "route", "add", "default", "via", places.gateway)
    _FORWARDING.write_text("1")
    run("writing nftables rules", "nft", "-f", "-", text=_rules(places))
    for network in (places.pods, places.services):
        _ip("route", "replace", network, "via", places.node, "dev", places.link)


def down(places: Places) -> None:
    """Remove it all; nothing happens where nothing is."""
    for command in (
        ["nft", "delete", "table", "ip", places.table],
        ["ip", "link", "delete", places.link],
        ["umount", "--lazy", str(places.namespace)],
    ):
        if shutil.which(command[0]):
            subprocess.run(command, capture_output=True, check=False)
    places.namespace.unlink(missing_ok=True)


def enter(places: Places) -> list[str]:
    """Give the words that start a command inside the node's network.

    `ip netns exec` would do more: it hides the control groups by mounting a new /sys.
    """
    return ["nsenter", f"--net={places.namespace}"]


def _rules(places: Places) -> str:
    link, inside = places.link, f"{{ {places.link_network}, {places.pods} }}"
    # Until kube-proxy knows a service, its address must not leave the machine by the way out.
    return f"""
        table ip {places.table} {{
            chain out {{
                type nat hook postrouting priority srcnat;
                ip saddr {inside} oifname != "{link}" masquerade
            }}
            chain stray {{
                type filter hook forward priority filter;
                iifname "{link}" ip daddr {{ {places.services}, {places.pods} }} drop
            }}
        }}
    """


def _ip(*arguments: str) -> None:
    run("setting up the network", "ip", *arguments)


def _inside(places: Places, *arguments: str) -> None:
    run("setting up the node's network", *enter(places), "ip", *arguments)
