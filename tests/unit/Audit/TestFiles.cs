using System.Text;
using Sidecar.Agent.Audit;
using Sidecar.Agent.Audit.Findings;
using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Programs;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.UnitTests.Audit;

/// <summary>Configuration files that are in memory only.</summary>
internal sealed class TestFiles
{
    private readonly Dictionary<string, byte[]> _content = new(StringComparer.Ordinal);

    public TestFiles(params ReadOnlySpan<(string Path, string Text)> files)
    {
        foreach (var (path, text) in files)
        {
            _content[path] = Encoding.UTF8.GetBytes(text);
        }
    }

    public ConfigFiles Open() => new(Read, List);

    public static ProgramFacts Haproxy(string text) => HaproxyReader.Read(new TestFiles(("/h.cfg", text)).Open(), ["/h.cfg"]);

    public static ProgramFacts Nginx(string text) => NginxReader.Read(new TestFiles(("/n.conf", text)).Open(), "/n.conf");

    public static ProgramFacts Apache(string text) => ApacheReader.Read(new TestFiles(("/a.conf", text)).Open(), "/a.conf");

    public static ProgramFacts Uwsgi(string text) => UwsgiReader.Read(new TestFiles(("/u.ini", text)).Open(), ["/u.ini"]);

    public static ProgramFacts Gunicorn(string text) => GunicornReader.Read(new TestFiles(("/g.py", text)).Open(), "/g.py");

    public static ProgramFacts Squid(string text) => SquidReader.Read(new TestFiles(("/s.conf", text)).Open(), "/s.conf");

    /// <summary>The findings about programs that were read from files alone.</summary>
    public static IReadOnlyList<AuditFinding> Examine(params IReadOnlyList<ProgramFacts> programs) => AuditReport.Of(new AuditedStack { Programs = programs }).Findings;

    private byte[]? Read(string path, out string problem)
    {
        problem = "it is not there";
        return _content.GetValueOrDefault(path);
    }

    private List<string>? List(string directory)
    {
        var prefix = directory == "/" ? "/" : directory + "/";
        var names = _content.Keys.Where(path => path.StartsWith(prefix, StringComparison.Ordinal)).Select(path => path[prefix.Length..].Split('/')[0])
            .Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal).ToList();
        return names.Count == 0 ? null : names;
    }
}
