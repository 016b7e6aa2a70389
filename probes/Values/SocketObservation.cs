namespace Sidecar.Probes.Values;

/// <summary>TCP states as the kernel numbers them (include/net/tcp_states.h).</summary>
public enum TcpState : byte
{
    Unknown = 0,
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    NewSynReceived = 12,
}

/// <summary>Which timer runs on a socket (idiag_timer in net/ipv4/inet_diag.c).</summary>
public enum SocketTimer : byte
{
    None = 0,

    /// <summary>Retransmission, early retransmit, tail-loss probe or reordering; idiag_retrans counts timeouts.</summary>
    Retransmission = 1,

    /// <summary>Keepalive (or FIN_WAIT2); idiag_retrans counts unanswered probes.</summary>
    Keepalive = 2,

    TimeWait = 3,

    /// <summary>Zero-window probe; idiag_retrans counts unanswered probes.</summary>
    ZeroWindowProbe = 4,
}

/// <summary>One socket as one sock_diag answer described it: struct inet_diag_msg with its TCP_INFO.</summary>
public readonly struct SocketObservation
{
    /// <summary>AF_INET (2) or AF_INET6 (10); an IPv4-mapped connection is AF_INET6.</summary>
    public required int Family { get; init; }

    public required TcpState State { get; init; }

    public required SocketTimer Timer { get; init; }

    /// <summary>Timeouts or unanswered probes, by <see cref="Timer"/>.</summary>
    public required byte TimerRetransmissions { get; init; }

    /// <summary>Milliseconds until <see cref="Timer"/> fires.</summary>
    public required uint TimerExpiresMilliseconds { get; init; }

    public required TcpEndPoint Local { get; init; }

    public required TcpEndPoint Peer { get; init; }

    /// <summary>Interface index the socket is bound to, or 0.</summary>
    public required uint Interface { get; init; }

    public required SocketCookie Cookie { get; init; }

    /// <summary>Bytes received and not yet read by the application; for LISTEN the connections waiting to be accepted.</summary>
    public required uint ReceiveQueue { get; init; }

    /// <summary>Bytes written and not yet acknowledged; for LISTEN the queue's limit.</summary>
    public required uint SendQueue { get; init; }

    public required uint Uid { get; init; }

    /// <summary>Inode of the socket; 0 once no process holds it.</summary>
    public required uint Inode { get; init; }

    public required TcpInfo Info { get; init; }
}
