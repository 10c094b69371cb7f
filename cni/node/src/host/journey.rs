//! A function's way into a pod's namespace and back.

use std::os::fd::AsRawFd;

use cni_bin::code;
use fail::fail_point;
use tokio_util::sync::CancellationToken;

use super::card::Card;
use super::function::{Function, FunctionId};
use crate::error::Error;
use crate::netlink::{Change, Link, Move, Netlink};
use crate::netns::Netns;
use crate::plumb::{self, Offload, exists, kernel, no_socket};
use crate::wiring::Wiring;

/// Moves the function into the pod and sets it up there. Nothing is undone here.
pub(crate) async fn go(
    card: &Card,
    function: &Function,
    netns: &Netns,
    wiring: &Wiring,
) -> Result<(), Error> {
    let never = CancellationToken::new();
    enter(card, function, netns, &wiring.id.ifname, &never).await?;
    set_up(card, function, netns, wiring).await
}

/// Moves the function into the pod, where it has its name and is down: all that can be done before its wiring is known. One without a
/// link stays where it is. Does nothing if it is not wanted any more when its turn has come. Nothing is undone here.
pub(crate) async fn enter(
    card: &Card,
    function: &Function,
    netns: &Netns,
    ifname: &str,
    unwanted: &CancellationToken,
) -> Result<(), Error> {
    if function.vfio {
        return Ok(());
    }
    let (provider, id) = (card.provider(), function.id);
    let before = move || -> Result<(Netlink, Link), Error> {
        let mut netlink = Netlink::open().map_err(|why| no_socket(&why))?;
        let link = provider.find(id, &mut netlink)?.ok_or_else(|| {
            Error::new(
                code::TRY_AGAIN_LATER,
                format!("Function {id} of the card was at home and is not any more."),
                "The card was reset, most likely; the runtime tries again by itself.",
            )
        })?;
        Ok((netlink, link))
    };
    let (target, ifname) = (netns.clone(), ifname.to_owned());
    let inside = move |outside: Result<(Netlink, Link), Error>| -> Result<(), Error> {
        let (mut outside, link) = outside?;
        let taken = Netlink::open()
            .map_err(|why| no_socket(&why))?
            .link(&ifname)
            .map_err(|why| kernel("look at the pod's links", &why))?;
        if taken.is_some() {
            return Err(exists(&ifname));
        }
        outside.apply(&[Change::Move(Move {
            link: link.index,
            netns: target.fd().as_raw_fd(),
            name: ifname,
        })])?;
        fail_point!("host::moved");
        Ok(())
    };
    let turn = tokio::select! {
        turn = card.turn() => turn,
        () = unwanted.cancelled() => return Ok(()),
    };
    let gone = netns.run_after(before, inside).await;
    drop(turn);
    card.moved(id, None);
    gone?
}

/// Sets up a function that is in the pod. Nothing is undone here.
pub(crate) async fn set_up(
    card: &Card,
    function: &Function,
    netns: &Netns,
    wiring: &Wiring,
) -> Result<(), Error> {
    let (id, mac) = (function.id, wiring.mac);
    if function.vfio {
        let (provider, function) = (card.provider(), function.clone());
        let prepared = tokio::task::spawn_blocking(move || provider.prepare(&function, mac)).await;
        return prepared.unwrap_or_else(|_| Err(broken(id)));
    }
    let wiring = wiring.clone();
    let inside = move || -> Result<(), Error> {
        let mut netlink = Netlink::open().map_err(|why| no_socket(&why))?;
        let link = netlink
            .link(&wiring.id.ifname)
            .map_err(|why| kernel("look at the pod's interface", &why))?
            .ok_or_else(|| {
                Error::new(
                    code::TRY_AGAIN_LATER,
                    format!("Function {id} of the card was in the pod and is not any more."),
                    "The card was reset, most likely; the runtime tries again by itself.",
                )
            })?
            .index;
        let mtu = wiring.mtu;
        netlink.apply(&[Change::SetMac { link, mac }, Change::SetMtu { link, mtu }])?;
        plumb::inside(&wiring, Offload::default())
    };
    let turn = card.turn_to_set_up().await;
    let done = netns.run(inside).await;
    drop(turn);
    done?
}

fn broken(id: FunctionId) -> Error {
    Error::new(
        code::IO_FAILURE,
        format!("The preparation of function {id} broke off."),
        "Report this.",
    )
}

/// Whether the function's link is in a namespace.
pub(crate) async fn is_in(card: &Card, id: FunctionId, netns: &Netns) -> Result<bool, Error> {
    let provider = card.provider();
    let look = move || {
        let mut netlink = Netlink::open().map_err(|why| no_socket(&why))?;
        Ok(provider.find(id, &mut netlink)?.is_some())
    };
    netns.run(look).await?
}

/// Brings the function home under its own name: from the pod's namespace if it is there and that still is, or from where the kernel
/// has put it. One that is nowhere is on its way: the end of its namespace brings it home.
pub(crate) async fn come_back(
    card: &Card,
    host: &Netns,
    function: &Function,
    netns: Option<&Netns>,
) -> Result<(), Error> {
    let provider = card.provider();
    if let Some(netns) = netns.filter(|_| !function.vfio) {
        let (home, provider) = (host.clone(), card.provider());
        let (id, name) = (function.id, function.home.clone());
        let leave = move || -> Result<bool, Error> {
            let mut netlink = Netlink::open().map_err(|why| no_socket(&why))?;
            let Some(link) = provider.find(id, &mut netlink)? else {
                return Ok(false);
            };
            netlink.apply(&[Change::Move(Move {
                link: link.index,
                netns: home.fd().as_raw_fd(),
                name,
            })])?;
            Ok(true)
        };
        let turn = card.turn().await;
        let left = netns.run(leave).await;
        drop(turn);
        if left?? {
            card.moved(function.id, Some(function.home.clone()));
        }
    }
    let function = function.clone();
    let (id, name) = (function.id, function.home.clone());
    let settle = move || -> Result<bool, Error> {
        let mut netlink = Netlink::open().map_err(|why| no_socket(&why))?;
        let link = provider.find(function.id, &mut netlink)?;
        let found = link.is_some();
        if let Some(link) = link.filter(|link| link.name != function.home || link.up) {
            let link_index = link.index;
            netlink.apply(&[
                Change::SetDown { link: link_index },
                Change::Rename {
                    link: link_index,
                    name: function.home.clone(),
                },
            ])?;
        }
        if found || function.vfio {
            provider.tidy(&function)?;
        }
        Ok(found)
    };
    let found = host.run(settle).await??;
    card.moved(id, found.then_some(name));
    Ok(())
}
