namespace Sidecar.Probes.Values;

/// <summary>
/// The kernel's 64-bit identity of a socket, unique in its network namespace's lifetime and never reused
/// (sock_gen_cookie; SO_COOKIE reads the same number).
/// </summary>
public readonly record struct SocketCookie(ulong Value)
{
    /// <summary>INET_DIAG_NOCOOKIE: matches any socket. Never accepted where a socket is to be changed.</summary>
    public static readonly SocketCookie None = new(ulong.MaxValue);

    public bool IsNone => Value is ulong.MaxValue or 0;

    public override string ToString() => Value.ToString("x");
}
