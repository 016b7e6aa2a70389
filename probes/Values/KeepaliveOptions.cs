namespace Sidecar.Probes.Values;

/// <summary>Keepalive options of one socket as getsockopt(2) reads them (tcp(7)).</summary>
/// <param name="Enabled">SO_KEEPALIVE.</param>
/// <param name="Idle">TCP_KEEPIDLE: idle time before the first probe; whole seconds, 1 s to 32,767 s.</param>
/// <param name="Interval">TCP_KEEPINTVL: time between probes; whole seconds, 1 s to 32,767 s.</param>
/// <param name="Count">TCP_KEEPCNT: unanswered probes that end the connection; 1 to 127.</param>
/// <param name="UserTimeout">TCP_USER_TIMEOUT; zero where not set. Where set it takes the place of <paramref name="Count"/>.</param>
public readonly record struct KeepaliveOptions(bool Enabled, TimeSpan Idle, TimeSpan Interval, int Count, TimeSpan UserTimeout);
