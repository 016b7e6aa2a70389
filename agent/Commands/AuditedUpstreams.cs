using System.Net;
using System.Text.Json;
using Sidecar.Agent.Audit;
using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Measurement;
using Sidecar.Agent.Telemetry;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Commands;

/// <summary>
/// The agent's own upstreams as an audit needs them: what is declared or was measured of their idle timeouts, and what their
/// PostgreSQL servers say.
/// </summary>
internal sealed class AuditedUpstreams(SidecarConfiguration configuration)
{
    private readonly List<Note> _notes = [];

    /// <summary>Upstreams, and a last hop for each whose server can be asked.</summary>
    public UpstreamFacts Read()
    {
        var kept = ReadKept();
        var hops = new List<Hop>();
        var found = new List<WatchedUpstream>();
        foreach (var section in configuration.Upstreams.Where(section => !section.IsBuiltIn))
        {
            var place = PlaceOf(section.Name);
            var idle = section.IdleTimeout.Source switch
            {
                IdleTimeoutSource.Declared => section.IdleTimeout.Value,
                IdleTimeoutSource.Measure => Measured(section, kept),
                _ => null,
            };
            var settings = Ask(section, place);
            if (settings is not null)
            {
                hops.Add(new Hop
                {
                    Program = "postgresql",
                    Name = section.Name,
                    Place = ServerOf(section),
                    Limits =
                    [
                        new Limit
                        {
                            Kind = LimitKind.Work,
                            Setting = "statement_timeout",
                            Value = settings.StatementTimeout is { } time && time > TimeSpan.Zero ? time : null,
                            Place = settings.StatementTimeoutLine is { } line ? new Place($"{section.Name}, {line.File}", line.Line) : ServerOf(section),
                            Form = "statement_timeout = '{0}s'",
                            Ending = Ending.ServerError,
                        },
                    ],
                    Slots = settings.MaxConnections,
                });
            }

            found.Add(new WatchedUpstream
            {
                Name = section.Name,
                Place = place,
                ServerPlace = ServerOf(section),
                IdleTimeout = idle,
                KeepaliveIdle = idle is { } forgets ? KeepalivePlan.TargetIdle(forgets) : null,
                IsArmed = section.Keepalive && configuration.Agent.Mode == AgentMode.Protect,
                Advice = settings is null ? [] : Advisor.For(section, idle, section.RefreshedBy == IdleClock.Data, settings),
            });
        }

        return new UpstreamFacts { Upstreams = found, Databases = hops, Notes = _notes };
    }

    private static Place ServerOf(UpstreamSection section) => new($"{section.Name}, postgresql.conf", 0);

    /// <summary>The line of <c>[upstream:NAME]</c>; the loader keeps no lines.</summary>
    private Place PlaceOf(string name)
    {
        foreach (var file in configuration.Files)
        {
            try
            {
                var section = IniDocument.Parse(file, File.ReadAllBytes(file)).Sections.FirstOrDefault(one => one.Name == "upstream:" + name);
                if (section is not null)
                {
                    return new Place(file, section.Line);
                }
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // it was there a moment ago
            }
        }

        return new Place("conn-sidecar.conf", 0);
    }

    private ServerSettings? Ask(UpstreamSection section, Place place)
    {
        if (section.DsnFile is not { } file || section.Protocol != UpstreamProtocol.PostgreSql)
        {
            return null;
        }

        var probe = new SessionProbe(() => DsnFile.Read(file));
        try
        {
            return probe.ReadSettingsAsync(CancellationToken.None).GetAwaiter().GetResult();
        }
        catch (Exception e) when (e is ServerProbeException or DsnFileException)
        {
            _notes.Add(new Note(place, $"{section.Name}: its server cannot be asked: {Printable.Escape(e.Message)}"));
            return null;
        }
        finally
        {
            probe.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
    }

    /// <summary>What the agent has kept; read without touching the file, even where it is damaged.</summary>
    private IReadOnlyList<EvidenceOfPath> ReadKept()
    {
        var path = Path.Combine(configuration.Agent.StateDirectory, EvidenceStore.FileName);
        try
        {
            using var stream = File.OpenRead(path);
            return JsonSerializer.Deserialize(stream, EvidenceJson.Default.EvidenceDocument) is { Version: EvidenceDocument.CurrentVersion } document ? document.Paths : [];
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return [];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException or NotSupportedException or ArgumentException)
        {
            _notes.Add(new Note(new Place(path, 0), "measured idle timeouts cannot be read"));
            return [];
        }
    }

    /// <summary>The shortest idle timeout of the paths to an upstream; null where no loss is known.</summary>
    private static TimeSpan? Measured(UpstreamSection section, IReadOnlyList<EvidenceOfPath> kept)
    {
        var upstream = new Upstream(section);
        var any = TcpEndPoint.From(IPAddress.Any, 0);
        TimeSpan? least = null;
        foreach (var path in kept)
        {
            if (IPEndPoint.TryParse(path.Path.Destination, out var destination) && upstream.Matches(any, TcpEndPoint.From(destination.Address, destination.Port))
                && new PathEstimator(path.Evidence).Estimate(DateTimeOffset.UtcNow) is { Upper: not null } estimate
                && (least is null || estimate.Lower < least))
            {
                least = estimate.Lower;
            }
        }

        return least;
    }
}
