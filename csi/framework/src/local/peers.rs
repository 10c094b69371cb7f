//! Who is connected to a TCP port, as the kernel has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `TCP_ESTABLISHED` (include/net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// The addresses that are connected to `port` in the network namespace of the process; none if it is not there.
pub(crate) fn connected(pid: u32, port: u16) -> Vec<String> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}"));
    let mut peers: Vec<String> = ["tcp", "tcp6"]
        .iter()
        .filter_map(|name| read(name).ok())
        .flat_map(|table| parse(&table, port))
        .collect();
    peers.sort();
    peers
}

fn parse(table: &str, port: u16) -> Vec<String> {
    let peer = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (_, own) = local.split_once(':')?;
        let ours = u16::from_str_radix(own, 16) == Ok(port) && state == ESTABLISHED;
        let (address, port) = remote.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        ours.then(|| Some(std::net::SocketAddr::new(ip(address)?, port).to_string()))?
    };
    table.lines().skip(1).filter_map(peer).collect()
}

/// Words in the machine's byte order, which is little-endian here, of an address in the network's.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |n: usize| u32::from_str_radix(hex.get(8 * n..8 * n + 8)?, 16).ok();
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into());
    }
    let mut bytes = [0; 16];
    for (n, part) in bytes.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(n)?.to_ne_bytes());
    }
    Some(Ipv6Addr::from(bytes).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn established_connections_of_the_port_are_listed() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            0: 0100007F:2A49 00000000:0000 0A 00000000:00000000\n\
            1: 0100007F:2A49 0200007F:D431 01 00000000:00000000\n\
            2: 0100007F:2A50 0200007F:D432 01 00000000:00000000\n";
        assert_eq!(parse(table, 0x2A49), ["127.0.0.2:54321"]);
    }
}
