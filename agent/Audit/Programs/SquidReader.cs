using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Programs;

/// <summary>Reads squid.conf: a directive a line, <c>include</c>, times such as <c>15 minutes</c> (squid.conf.documented).</summary>
internal sealed class SquidReader
{
    private const int MostDirectives = 50_000;

    private readonly ConfigFiles _files;
    private readonly List<Note> _notes = [];
    private readonly Directive _root;

    private SquidReader(ConfigFiles files, string path) => (_files, _root) = (files, new Directive("main", [], new Place(path, 0)));

    /// <summary>What the configuration says; what cannot be read is among the notes.</summary>
    /// <param name="files">The files as Squid sees them.</param>
    /// <param name="path">Its configuration.</param>
    public static ProgramFacts Read(ConfigFiles files, string path)
    {
        var reader = new SquidReader(files, path);
        reader.ReadFile(path, null, 0);
        return new ProgramFacts { Program = "squid", Hops = reader.Interpret(), Files = files.Read, Notes = [.. files.Notes, .. reader._notes] };
    }

    private void ReadFile(string path, Place? from, int depth)
    {
        if (depth > ConfigFiles.MostDepth)
        {
            _notes.Add(new Note(from!, "includes go too deep; not followed"));
            return;
        }

        if (_files.Lines(path, from) is not { } lines)
        {
            return;
        }

        for (var i = 0; i < lines.Length; i++)
        {
            var words = Words.Split(lines[i]);
            if (words.Count == 0)
            {
                continue;
            }

            var place = new Place(path, i + 1);
            if (words[0] == "include")
            {
                foreach (var pattern in words.Skip(1))
                {
                    foreach (var included in _files.Expand(ConfigFiles.Absolute("/etc/squid", pattern)))
                    {
                        ReadFile(included, place, depth + 1);
                    }
                }
            }
            else if (words[0] is "if" or "else" or "endif")
            {
                if (words[0] == "if")
                {
                    _notes.Add(new Note(place, "a condition: every branch is read"));
                }
            }
            else if (_root.Children.Count < MostDirectives)
            {
                _root.Children.Add(new Directive(words[0], words.GetRange(1, words.Count - 1), place));
            }
        }
    }

    private List<Hop> Interpret()
    {
        var peers = new List<Target>();
        foreach (var peer in _root.All("cache_peer"))
        {
            // cache_peer HOST TYPE HTTP-PORT ICP-PORT …
            if (peer.Arguments.Count >= 3 && peer.Arguments[1] == "parent" && Words.Number(peer.Arguments[2]) is { } port && Address.Parse(peer.First, port) is { } address)
            {
                peers.Add(new Target(address, peer.Place));
            }
        }

        var listens = _root.All("http_port").Concat(_root.All("https_port")).Select(port => Address.Parse(port.First)).OfType<Address>()
            .Select(address => new Listener(address, null, null, "")).ToList();
        if (listens.Count == 0 && peers.Count == 0)
        {
            return [];
        }

        return
        [
            new Hop
            {
                Program = "squid",
                Name = "",
                Place = _root.Last("http_port")?.Place ?? _root.Place,
                Listens = listens,
                Targets = peers,
                Limits = [Time("read_timeout", TimeSpan.FromMinutes(15), Ending.GatewayTimeout)],
                KeepAlive = Time("client_idle_pconn_timeout", TimeSpan.FromMinutes(2), Ending.Close),
                AnswersForOthers = true,
            },
        ];
    }

    private Limit Time(string setting, TimeSpan standard, Ending ending)
    {
        var set = _root.Last(setting);
        var value = standard;
        var place = set?.Place;
        if (set is not null && !Words.TryTime(string.Join(' ', set.Arguments), TimeSpan.FromSeconds(1), out value))
        {
            _notes.Add(new Note(set.Place, $"{setting}: a time that cannot be read; its default is taken"));
            (value, place) = (standard, null);
        }

        return new Limit { Kind = LimitKind.Wait, Setting = setting, Value = value, Place = place, Form = setting + " {0} seconds", Ending = ending };
    }
}
