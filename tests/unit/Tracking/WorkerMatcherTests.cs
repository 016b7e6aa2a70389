using Shouldly;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Tracking;

public sealed class WorkerMatcherTests
{
    [Fact]
    public void The_first_workers_section_whose_criteria_all_hold_names_the_process()
    {
        var matcher = new WorkerMatcher(
        [
            new WorkersSection { Name = "nothing" },
            new WorkersSection { Name = "both", Unit = "web.service", User = "1000" },
            new WorkersSection { Name = "unit", Unit = "web.service" },
            new WorkersSection { Name = "path", Executable = "/usr/bin/python3.11" },
            new WorkersSection { Name = "name", Executable = "uwsgi" },
            new WorkersSection { Name = "root", User = "root" },
        ]);
        matcher.Find(Process(unit: "web.service", uid: 1000)).ShouldNotBeNull().Name.ShouldBe("both");
        matcher.Find(Process(unit: "web.service", uid: 33)).ShouldNotBeNull().Name.ShouldBe("unit");
        matcher.Find(Process(executable: "/usr/bin/python3.11")).ShouldNotBeNull().Name.ShouldBe("path");
        matcher.Find(Process(executable: "/opt/bin/uwsgi")).ShouldNotBeNull().Name.ShouldBe("name");
        matcher.Find(Process(executable: "/opt/uwsgi/other")).ShouldBeNull();
        matcher.Find(Process(uid: 0)).ShouldNotBeNull().Name.ShouldBe("root");
    }

    [Fact]
    public void What_is_unknown_of_a_process_matches_nothing()
    {
        var matcher = new WorkerMatcher([new WorkersSection { Name = "a", User = "nobody-has-this-name" }, new WorkersSection { Name = "b", Unit = "web.service", User = "0" }]);
        matcher.Find(Process()).ShouldBeNull();
        matcher.Find(Process(unit: "web.service")).ShouldBeNull();
    }

    private static OwnerInfo Process(string? unit = null, uint? uid = null, string? executable = null) =>
        new(new ProcessIdentity(123, 456), "comm", executable, unit, uid, false, null);
}
