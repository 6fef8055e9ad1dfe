"""The node's network: a namespace, a veth pair, and the way out for its pods."""

import shutil
import subprocess
from pathlib import Path

from sandbox.places import Places


def up(places: Places) -> None:
    """Make the namespace and everything on both its ends; nothing happens where all is there."""
    if not _complete(places):
        down(places)
        _ip("netns", "add", places.namespace)
        _ip("link", "add", places.link, "type", "veth", "peer", "eth0", "netns", places.namespace)
        _ip("addr", "add", f"{places.gateway}/30", "dev", places.link)
        _ip("link", "set", places.link, "up")
        _inside(places, "addr", "add", f"{places.node}/30", "dev", "eth0")
        _inside(places, "link", "set", "eth0", "up")
        _inside(places, "link", "set", "lo", "up")
        _inside(places, "route", "add", "default", "via", places.gateway)
        for network in (places.pods, places.services):
            _ip("route", "replace", network, "via", places.node)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # Until kube-proxy knows a service, its address must not leave the machine by the way out.
    rules = f"""
        table ip {places.table}
        delete table ip {places.table}
        table ip {places.table} {{
            chain out {{
                type nat hook postrouting priority srcnat;
                ip saddr {places.link_network} oifname != "{places.link}" masquerade
            }}
            chain stray {{
                type filter hook forward priority filter;
                iifname "{places.link}" ip daddr {{ {places.services}, {places.pods} }} drop
            }}
        }}
    """
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)


def down(places: Places) -> None:
    """Remove it all; nothing happens where nothing is."""
    for command in (
        ["nft", "delete", "table", "ip", places.table],
        ["ip", "link", "delete", places.link],
        ["ip", "netns", "delete", places.namespace],
    ):
        if shutil.which(command[0]):
            subprocess.run(command, capture_output=True, check=False)


def enter(places: Places) -> list[str]:
    """Give the words that start a command inside the node's network.

    `ip netns exec` would do more: it hides the control groups by mounting a new /sys.
    """
    return ["nsenter", f"--net=/run/netns/{places.namespace}"]


def _complete(places: Places) -> bool:
    """Tell whether both ends and the last route are there."""
    route = subprocess.run(
        ["ip", "route", "show", places.services], capture_output=True, text=True, check=False
    )
    return places.link in route.stdout and Path(f"/run/netns/{places.namespace}").exists()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _inside(places: Places, *arguments: str) -> None:
    subprocess.run([*enter(places), "ip", *arguments], check=True, capture_output=True)
