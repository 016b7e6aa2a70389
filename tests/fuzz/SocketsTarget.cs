using System.Net;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>What is made of the kernel's counters: numbers that run backwards, overflow, or contradict one another.</summary>
internal sealed class SocketsTarget : FuzzTarget
{
    private static readonly IPAddress Server = IPAddress.Parse("10.0.0.2");

    internal override void Try(Dice dice)
    {
        var upstream = new Upstream(new UpstreamSection
        {
            Name = "db",
            Endpoints = [new EndpointPattern("10.0.0.2:5432", null, new IPNetwork(Server, 32), 5432)],
            IdleTimeout = dice.Pick(
                new IdleTimeoutSetting(IdleTimeoutSource.Measure, TimeSpan.Zero),
                new IdleTimeoutSetting(IdleTimeoutSource.Declared, TimeSpan.FromSeconds(dice.Choose(1, 4000))),
                new IdleTimeoutSetting(IdleTimeoutSource.None, TimeSpan.Zero)),
        });
        var key = new SocketKey(2, TcpEndPoint.From(IPAddress.Parse("10.0.0.1"), 40000), TcpEndPoint.From(Server, 5432), 0, new SocketCookie(1));
        var now = TimeSpan.FromSeconds(dice.Choose(0, 100_000));
        var utcNow = DateTimeOffset.UnixEpoch.AddYears(50);
        var connection = new PathTable().Track(key, upstream, 1, 33, now);
        var inFlight = false;
        for (var scans = dice.Choose(1, 12); scans > 0; scans--)
        {
            if (InetDiagWire.TryReadSocket(DiagMessages.Socket(dice, 1), out var socket))
            {
                connection.User.Take(connection.Update(socket, now), TimeSpan.Zero, now, utcNow);
                inFlight = socket.Info is { IsPresent: true, Unacked: > 0 };
            }

            if (dice.Chance(0.3))
            {
                connection.NoteConnectProbe(dice.Chance(0.5), now - dice.Seconds(0, 2), now);
            }

            if (dice.Chance(0.3))
            {
                connection.NoteWindowProbe(now);
            }

            connection.Assess(utcNow);
            Hold(Enum.IsDefined(connection.Judged.Verdict), "no verdict");

            // Without any connect probe on its path, nothing may ever be condemned.
            Hold(connection.Judged.Verdict is not Verdict.Stuck, $"stuck without a connect probe, in flight {inFlight}");
            Hold(Explanation.Of(connection, now).Length > 0, "no explanation");
            now += dice.MagnitudeSeconds(0.001, 10_000);
            utcNow += dice.Chance(0.9) ? TimeSpan.FromSeconds(1) : TimeSpan.FromHours(dice.Choose(-10_000, 10_000));
        }
    }
}
